package dev.tidemark.engine.migrate;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtySource;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.DirtyTracker.Share;
import dev.tidemark.engine.source.dma.DmaMap;
import dev.tidemark.engine.source.dma.DmaSource;
import dev.tidemark.engine.source.dma.HwptSource;
import dev.tidemark.engine.source.dma.Type1Source;
import dev.tidemark.engine.stream.SectionOutput;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.BitSet;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestReporter;
import org.junit.jupiter.api.Timeout;

/**
 * A guest whose memory nobody writes but its devices, one behind type1 and one behind a page table
 * that tracks, is migrated while they do; in the lab. Both have a record of their own of what they
 * wrote, which the dirty pages are compared with.
 */
@Tag("lab-mock")
@Timeout(300)
class DeviceWritesMigrationTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int PAGES = 2048;
  private static final long PAGE = Pages.SIZE;
  private static final long TYPE1 = 1L << 20;
  private static final long TABLE = MockIommu.MOCK_APERTURE_START;

  /** Of each device, between the guest's last breath and the last sync. */
  private static final int LAST_WRITES = 40;

  private static final int TYPE1_RATE = 2000;
  private static final MigrationOptions OPTIONS =
      MigrationOptions.DEFAULT
          .withDowntimeLimit(Duration.ofNanos(1))
          .withLimits(8, Duration.ofMinutes(2), AtLimit.STOP_AND_COPY);

  static {
    System.out.println("DeviceWritesMigrationTest: -Dtidemark.seed=" + SEED);
  }

  private final SplittableRandom random = new SplittableRandom(SEED);
  private final Mapping memory = Mapping.anonymous(PAGES * PAGE);
  private final RamBlock block = new RamBlock("ram", memory.segment());
  private final WritingGuest destination = new WritingGuest("ram", PAGES, 0, 0);
  private final DirtyTracker tracker = new DirtyTracker(List.of(block));
  private final RamBlockLog log = tracker.logs().getFirst();
  private final Iommufd iommufd = Iommufd.open();
  private final Ioas ioas = iommufd.allocIoas();
  private final TableDevice behindTable = new TableDevice();
  private final VfioContainer container = VfioContainer.open();
  private final VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PLAIN).group());
  private final DmaDevice behindType1;
  private final DmaSource type1;
  private final HwptSource table;
  private final Guest guest = new Guest();

  DeviceWritesMigrationTest() {
    tracker.coverByMarks(log, 0, PAGES);
    group.setContainer(container);
    container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
    behindType1 = DmaDevice.open(DmaDevice.PLAIN, group);
    behindType1.program(TYPE1, PAGES * PAGE, 64, SEED);
    type1 = new Type1Source(container, new DmaMap());
    table = new HwptSource(ioas, new DmaMap());
    table.add(behindTable.hwpt);
    type1.map(TYPE1, PAGES * PAGE, log, 0, true);
    table.map(TABLE, PAGES * PAGE, log, 0, true);
  }

  @AfterEach
  void close() throws InterruptedException {
    behindTable.close();
    tracker.close();
    type1.close();
    table.close();
    behindType1.close();
    group.close();
    container.close();
    iommufd.close();
    destination.close();
    memory.close();
  }

  /**
   * Writes through an address space, and has the page table know it, about a page a millisecond.
   */
  private final class TableDevice {
    private final MockIommu mock = new MockIommu(iommufd);
    private final Hwpt hwpt;
    private final MockIommu.Access access;
    private final BitSet written = new BitSet();
    private final SplittableRandom where = new SplittableRandom(SEED + 1);
    private final Thread thread;
    private boolean running;
    private boolean closed;

    TableDevice() {
      MockIommu.Device device = mock.addDevice(ioas, 0);
      hwpt =
          iommufd.allocHwpt(device.deviceId(), ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
      access = mock.access(ioas);
      thread = Thread.ofPlatform().daemon().name("device").start(this::loop);
    }

    private synchronized void loop() {
      try {
        while (!closed) {
          if (running) {
            burst(1);
            wait(1);
          } else {
            wait();
          }
        }
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
    }

    synchronized void burst(int writes) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment value = arena.allocate(8);
        for (int i = 0; i < writes; i++) {
          int page = where.nextInt(PAGES);
          value.set(JAVA_LONG, 0, where.nextLong());
          access.write(TABLE + page * PAGE, value);
          mark(page);
          written.set(page);
        }
      }
    }

    private void mark(int page) {
      try {
        assertTrue(mock.dirty(hwpt, TABLE + page * PAGE));
      } catch (LinuxException e) {
        // A table that does not track has no bits; what it missed is in no round but the first.
        assertEquals(Errno.EINVAL, e.errno());
      }
    }

    synchronized void run(boolean on) {
      running = on;
      notifyAll();
    }

    synchronized BitSet written() {
      return (BitSet) written.clone();
    }

    synchronized void clear() {
      written.clear();
    }

    void close() throws InterruptedException {
      synchronized (this) {
        closed = true;
        notifyAll();
      }
      thread.join();
      access.close();
      hwpt.close();
    }
  }

  private BitSet writtenBehindType1() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment record = arena.allocate(PAGES / 8);
      behindType1.written(TYPE1, record);
      return BitSet.valueOf(record.toArray(JAVA_BYTE));
    }
  }

  /** No vCPUs, only devices. */
  private final class Guest implements GuestControl {
    /** What was dirty before the last writes. */
    private BitSet before;

    // All that was written until then, and the last writes.
    private BitSet byType1;
    private BitSet byTable;
    private BitSet lastByType1;
    private BitSet lastByTable;
    private long writes;

    @Override
    public void resume() {
      behindType1.run(TYPE1_RATE);
      behindTable.run(true);
    }

    @Override
    public void stop() {
      behindType1.pause();
      behindTable.run(false);
      // What is dirty by now, all of it given back; then some more, so that the last sync has
      // exactly that.
      tracker.sync();
      tracker.harvest();
      before = pagesOf(log);
      tracker.abort();
      byType1 = writtenBehindType1();
      byTable = behindTable.written();
      writes = behindType1.writes();
      behindType1.clear();
      behindTable.clear();
      behindType1.burst(LAST_WRITES);
      behindTable.burst(LAST_WRITES);
      lastByType1 = writtenBehindType1();
      lastByTable = behindTable.written();
      assertEquals(0, behindType1.errors());
    }
  }

  private static BitSet pagesOf(RamBlockLog log) {
    BitSet pages = new BitSet();
    RunCursor runs = log.epoch().runs();
    for (int found = runs.batch(); found > 0; found = runs.batch()) {
      for (int run = 0; run < found; run++) {
        pages.set((int) runs.start(run), (int) (runs.start(run) + runs.length(run)));
      }
    }
    return pages;
  }

  private static BitSet union(BitSet... sets) {
    BitSet union = new BitSet();
    for (BitSet set : sets) {
      union.or(set);
    }
    return union;
  }

  private static BitSet without(BitSet set, BitSet... others) {
    BitSet rest = (BitSet) set.clone();
    rest.andNot(union(others));
    return rest;
  }

  /** What was dirty: in all rounds but the first, which has everything, and in the last. */
  private static final class Taken {
    private final BitSet later = new BitSet();
    private BitSet last;
    private boolean first = true;
  }

  /** A device that has nothing to send, and sees what each harvest of the migration took. */
  private final class Watcher extends OneByteDevice {
    private final Taken taken;
    private long harvests;

    Watcher(Taken taken) {
      this.taken = taken;
    }

    @Override
    public long pendingBytes() {
      long now = log.counters().harvests();
      if (now != harvests && !taken.first) {
        taken.later.or(pagesOf(log));
      }
      taken.first = false;
      harvests = now;
      return 0;
    }

    @Override
    public void complete(SectionOutput out) {
      taken.last = pagesOf(log);
      super.complete(out);
    }
  }

  private MigrationResult migrate(Taken taken, List<DirtySource> sources) throws Exception {
    for (int page = 0; page < PAGES; page++) {
      memory.segment().set(JAVA_LONG, page * PAGE, random.nextLong());
    }
    sources.forEach(tracker::add);
    assertEquals(List.of(), tracker.shares());
    guest.resume();
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket from = Socket.connect(listener.localAddress());
        Socket to = listener.accept()) {
      CompletableFuture<String> arrival = new CompletableFuture<>();
      Thread.ofPlatform()
          .daemon()
          .start(
              () -> {
                try {
                  new IncomingMigration(
                          OPTIONS.machine(),
                          List.of(destination.block()),
                          to,
                          List.of(new OneByteArrival()),
                          List.of(),
                          destination)
                      .run();
                  arrival.complete("");
                } catch (RuntimeException e) {
                  to.shutdown();
                  arrival.complete(e.toString());
                }
              });
      MigrationResult result =
          new OutgoingMigration(
                  tracker,
                  from,
                  guest,
                  List.of(new Watcher(taken)),
                  List.of(),
                  OPTIONS,
                  progress -> {})
              .run();
      from.shutdown();
      assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
      assertEquals("", arrival.get(200, TimeUnit.SECONDS));
      assertEquals(0, tracker.failures(), () -> "" + tracker.lastFailure());
      return result;
    }
  }

  @Test
  void memoryThatOnlyDevicesWriteArrives(TestReporter reporter) throws Exception {
    Taken taken = new Taken();
    MigrationResult result = migrate(taken, List.of(type1, table));
    String seed = "seed " + SEED;
    assertEquals(new BitSet(), differing(), seed);
    BitSet lastUnion = union(guest.lastByType1, guest.lastByTable);
    assertEquals(union(guest.before, lastUnion), taken.last, seed);
    BitSet written = union(guest.byType1, guest.byTable, lastUnion);
    assertEquals(new BitSet(), without(taken.later, written), seed + ": not written, but dirty");
    assertEquals(new BitSet(), without(guest.before, written), seed + ": not written, but dirty");
    List<Share> shares =
        List.of(
            new Share("type1", without(guest.lastByType1, guest.before).cardinality()),
            new Share(
                "iommufd",
                without(guest.lastByTable, guest.before, guest.lastByType1).cardinality()));
    assertEquals(shares, tracker.shares(), seed);
    String line =
        ("%d pages, %d rounds, %d pages sent in %.1f s; written behind type1: %d pages by %d writes,"
                + " behind the page table: %d pages; in the last sync %s; 0 pages differ")
            .formatted(
                PAGES,
                result.rounds(),
                result.pagesSent(),
                result.totalNanos() / 1e9,
                guest.byType1.cardinality(),
                guest.writes,
                guest.byTable.cardinality(),
                shares);
    System.out.println("DeviceWritesMigrationTest: " + line);
    reporter.publishEntry("devices' writes", line);
  }

  /** Pages that are not the same at both ends. */
  private BitSet differing() {
    BitSet pages = new BitSet();
    for (int page = 0; page < PAGES; page++) {
      MemorySegment here = memory.segment().asSlice(page * PAGE, PAGE);
      MemorySegment there = destination.block().memory().asSlice(page * PAGE, PAGE);
      if (here.mismatch(there) >= 0) {
        pages.set(page);
      }
    }
    return pages;
  }

  private void assertDiffersOnlyWhereWritten(BitSet... byWhomNobodyAsked) {
    BitSet differing = differing();
    assertFalse(differing.isEmpty(), "seed " + SEED);
    assertEquals(new BitSet(), without(differing, byWhomNobodyAsked), "seed " + SEED);
    System.out.println(
        "DeviceWritesMigrationTest: one source left out: " + differing.cardinality() + " differ");
  }

  @Test
  void withoutTheContainersSourceMemoryDiffers() throws Exception {
    migrate(new Taken(), List.of(table));
    assertDiffersOnlyWhereWritten(guest.byType1, guest.lastByType1);
  }

  @Test
  void withoutThePageTablesSourceMemoryDiffers() throws Exception {
    migrate(new Taken(), List.of(type1));
    assertDiffersOnlyWhereWritten(guest.byTable, guest.lastByTable);
  }
}
