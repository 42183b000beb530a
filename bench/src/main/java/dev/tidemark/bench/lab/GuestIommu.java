package dev.tidemark.bench.lab;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.bench.guest.Joins;
import dev.tidemark.bench.guest.PageDevice;
import dev.tidemark.bench.guest.ProcessGuest;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.dma.DmaSource;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.locks.LockSupport;

/**
 * A guest's vIOMMU that never rests: all of the guest's memory is mapped for its device, in regions
 * of 64 KiB, and a thread unmaps one after the other and maps it elsewhere, with holes between.
 *
 * <p>A good driver unmaps what its device is done with: a page that the guest has written waits for
 * its region. A careless one lets the device go on. Pages that the guest itself does not use are
 * such: each in turn is written before it is unmapped, and goes on being written until the mapping
 * is gone; then not for a long time. As it was written before the unmap, none of it may be lost.
 *
 * <p>Threading: writes from one thread at a time; {@link #start()}, {@link #stop()} and {@link
 * #close()} by one thread.
 */
public final class GuestIommu implements PageDevice, AutoCloseable {
  private static final long REGION_PAGES = 16;
  private static final long REGION = REGION_PAGES << Pages.SHIFT;
  private static final int CARELESS_PAGES = 64;

  private static final long FIRST_CARELESS =
      ProcessGuest.FIRST_SPARE_PAGE + REGION_PAGES - 1 & -REGION_PAGES;

  /** Regions that are moved for each careless page, and for each that goes far away. */
  private static final int MOVES_A_CARELESS_PAGE = 8;

  private static final int MOVES_A_FAR_ONE = 512;

  private static final long PAUSE_NANOS = 2_000_000;
  private static final long CARELESS_PAUSE_NANOS = 50_000;
  private static final long NOWHERE = -1;

  /** Guarded by itself: it stays where it is while the device writes it. */
  private static final class Region {
    final long page;
    final long bytes;
    long iova;

    Region(long page, long pages, long iova) {
      this.page = page;
      this.bytes = pages << Pages.SHIFT;
      this.iova = iova;
    }
  }

  private final LabDevice device;
  private final DmaSource source;
  private final RamBlockLog log;
  private final Region[] regions;
  private final Region[] careless = new Region[CARELESS_PAGES];
  private final long carelessIova;
  private final ArrayDeque<Long> free = new ArrayDeque<>();
  private final MemorySegment before = Arena.ofAuto().allocate(JAVA_LONG);
  private final MemorySegment during = Arena.ofAuto().allocate(JAVA_LONG);

  private Thread mover;
  private Thread writer;
  private volatile boolean running;
  private volatile RuntimeException failure;

  /** What the careless device writes, and where the driver has begun to unmap. */
  private volatile long target = NOWHERE;

  private volatile long leaving = NOWHERE;

  private long moves;
  private long carelessMoves;
  private long farMoves;

  /** The region that is far away, if one is. */
  private Region far;

  /**
   * Maps all of a guest's memory.
   *
   * @param device writes it; borrowed
   * @param log of the guest's one block
   * @throws IllegalArgumentException if the device has too few addresses for so much memory
   */
  public GuestIommu(LabDevice device, RamBlockLog log) {
    this.device = device;
    this.source = device.source();
    this.log = log;
    long pages = log.block().pages();
    int count = Math.toIntExact((pages + REGION_PAGES - 1) / REGION_PAGES);
    int places = count + count / 4 + 2;
    carelessIova = device.firstIova() + (places + 1) * REGION;
    long room = (places + 1) * REGION + 2 * CARELESS_PAGES * Pages.SIZE;
    if (room > device.iovaBytes()) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "the device has %d bytes of addresses, %d of RAM take %d: less --ram",
              device.iovaBytes(),
              log.block().bytes(),
              room));
    }
    regions = new Region[count];
    for (int i = 0; i < count; i++) {
      long page = i * REGION_PAGES;
      if (page >= FIRST_CARELESS && page < FIRST_CARELESS + CARELESS_PAGES) {
        free.add(place(i));
        continue;
      }
      regions[i] = new Region(page, Math.min(REGION_PAGES, pages - page), place(i));
      map(regions[i], place(i));
    }
    for (int i = count; i < places; i++) {
      free.add(place(i));
    }
    for (int i = 0; i < CARELESS_PAGES; i++) {
      careless[i] = new Region(FIRST_CARELESS + i, 1, carelessPlace(i, 0));
      map(careless[i], careless[i].iova);
    }
  }

  private long place(int number) {
    return device.firstIova() + number * REGION;
  }

  /** Nobody else is ever mapped there: a device that is late must not hit what is not its own. */
  private long carelessPlace(int page, long turn) {
    return carelessIova + (2 * page + (turn & 1)) * Pages.SIZE;
  }

  private void map(Region region, long iova) {
    source.map(iova, region.bytes, log, region.page, true);
    region.iova = iova;
  }

  private void unmap(Region region) {
    long gone = source.unmap(region.iova, region.bytes);
    if (gone != region.bytes) {
      throw new IllegalStateException(
          String.format(
              Locale.ROOT, "unmapped %d bytes at 0x%x, not %d", gone, region.iova, region.bytes));
    }
  }

  @Override
  public void write(long address, MemorySegment bytes) {
    Region region = regions[(int) (address / REGION)];
    synchronized (region) {
      device.write(region.iova + address % REGION, bytes);
    }
  }

  /** Begins to move mappings, or goes on; does nothing if it does so already. */
  public void start() {
    if (running) {
      return;
    }
    running = true;
    mover = Thread.ofPlatform().daemon().name("guest iommu").start(() -> guarded(this::moveAll));
    writer =
        Thread.ofPlatform().daemon().name("careless device").start(() -> guarded(this::writeOn));
  }

  /**
   * Stops: when this returns nothing is being moved, and the careless device writes no more.
   *
   * @throws IllegalStateException if a mapping could not be moved, or a write failed that must not
   */
  public void stop() {
    running = false;
    join(mover);
    join(writer);
    if (failure != null) {
      throw new IllegalStateException("the guest's IOMMU failed: " + failure.getMessage(), failure);
    }
  }

  private static void join(Thread thread) {
    if (thread != null) {
      Joins.uninterruptibly(thread);
    }
  }

  private void guarded(Runnable work) {
    try {
      work.run();
    } catch (RuntimeException e) {
      failure = e;
    }
  }

  private void moveAll() {
    while (running) {
      Region region = regions[(int) (moves % regions.length)];
      moves++;
      if (region != null && region != far) {
        move(region);
      }
      if (moves % MOVES_A_CARELESS_PAGE == 0) {
        moveCareless();
      }
      if (moves % MOVES_A_FAR_ONE == 0) {
        moveFar();
      }
      LockSupport.parkNanos(PAUSE_NANOS);
    }
  }

  private void move(Region region) {
    synchronized (region) {
      long before = region.iova;
      unmap(region);
      map(region, free.remove());
      free.add(before);
    }
  }

  /** Moves a region to where the device's log does not reach yet. */
  private void moveFar() {
    Optional<Long> iova = device.elsewhere(farMoves++);
    if (iova.isEmpty()) {
      return;
    }
    if (far == null) {
      far = regions[regions.length - 1];
      free.add(far.iova);
    }
    synchronized (far) {
      unmap(far);
      map(far, iova.get());
    }
  }

  private void moveCareless() {
    int number = (int) (carelessMoves % CARELESS_PAGES);
    Region page = careless[number];
    long old = page.iova;
    target = old;
    // No sync between the write and what asks for it: a page that is clean then may be lost.
    source.map().lock();
    try {
      before.set(JAVA_LONG, 0, ~carelessMoves);
      device.write(old, before);
      leaving = old;
      unmap(page);
    } finally {
      source.map().unlock();
    }
    target = NOWHERE;
    map(page, carelessPlace(number, carelessMoves / CARELESS_PAGES + 1));
    carelessMoves++;
  }

  private void writeOn() {
    for (long value = 1; running; value++) {
      long iova = target;
      if (iova != NOWHERE) {
        during.set(JAVA_LONG, 0, value);
        try {
          device.write(iova, during);
        } catch (LinuxException e) {
          if (target == iova && leaving != iova) {
            throw e;
          }
        }
      }
      LockSupport.parkNanos(CARELESS_PAUSE_NANOS);
    }
  }

  @Override
  public void close() {
    running = false;
    join(mover);
    join(writer);
  }
}
