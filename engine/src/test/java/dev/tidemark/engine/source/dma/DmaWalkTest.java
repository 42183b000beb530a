package dev.tidemark.engine.source.dma;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.ReentrantLock;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * A random walk against a model: one thread maps, unmaps and has devices write, behind page tables,
 * with logs of their own, and in a type1 container; another syncs, harvests, commits, aborts, and
 * adds and removes page tables and devices. No page that was written may be missing from an epoch,
 * and none may be in it without a reason.
 */
@Tag("lab-mock")
class DmaWalkTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int STEPS = Integer.getInteger("tidemark.walk.steps", 20_000);

  /**
   * The last one is the type1 container's, too; of whose short mappings Linux 6.12 says too much.
   */
  private static final int[] BLOCK_PAGES = {4096, 1001, 3000};

  /** In large pages, which end with them. */
  private static final int[] LARGE_BLOCK_PAGES = {4096, 1024, 3072};

  private static final int EXACT = 2;
  private static final long SPACE = 16_384;
  private static final int LARGE = 2048;
  private static final int ENTRY = (int) (MockIommu.HUGE_PAGE_SIZE / LabDma.PAGE);

  static {
    System.out.println("DmaWalkTest: -Dtidemark.seed=" + SEED);
  }

  private record Mapped(long pages, int block, long page, boolean writable) {}

  /** An address space: its devices see page {@code at} of the model at {@code first + at}. */
  private record Space(
      DmaSource source, long first, int fromBlock, TreeMap<Long, Mapped> mappings, long[] writes) {
    Space(DmaSource source, long first, int fromBlock) {
      this(source, first, fromBlock, new TreeMap<>(), new long[1]);
    }
  }

  /** Held for each step of the writer, and for each look at the model. Never while syncing. */
  private final ReentrantLock model = new ReentrantLock();

  private final List<Hwpt> hwpts = new ArrayList<>();
  private final List<DmaDevice> loggers = new ArrayList<>();

  /** Written since the last snapshot. */
  private final BitSet[] written = sets();

  /** May be dirty in the next epoch: aborted, strict, joined, or written while it was taken. */
  private final BitSet[] allowed = sets();

  /** Whether there are large entries, and devices that track in large pages and say too much. */
  private boolean large;

  private int[] blockPages = BLOCK_PAGES;
  private Space tables;
  private Space logs;
  private Space type1;
  private List<Space> spaces;
  private DmaDevice contained;
  private DeviceLogSource logSource;
  private long maps;
  private long unmaps;

  private static BitSet[] sets() {
    BitSet[] sets = new BitSet[BLOCK_PAGES.length];
    for (int i = 0; i < sets.length; i++) {
      sets[i] = new BitSet();
    }
    return sets;
  }

  @ParameterizedTest
  @EnumSource
  void noPageIsLostAndNoneIsDirtyWithoutAReason(UnmapPolicy policy) throws InterruptedException {
    walk(policy);
  }

  /**
   * As above, with page tables that have large entries, and devices that track in 64 KiB and 2 MiB
   * and set bits outside of what they are asked for: these make more pages dirty than were written,
   * so only the lost ones are looked for.
   */
  @ParameterizedTest
  @EnumSource
  void withLargeEntriesAndLargeTrackedPagesNoPageIsLost(UnmapPolicy policy)
      throws InterruptedException {
    large = true;
    blockPages = LARGE_BLOCK_PAGES;
    walk(policy);
  }

  private void walk(UnmapPolicy policy) throws InterruptedException {
    int steps = policy == UnmapPolicy.QUERY ? STEPS : STEPS / 4;
    int flags = large ? MockIommu.MOCK_FLAGS_DEVICE_HUGE_IOVA : 0;
    try (LabDma lab =
            new LabDma(policy, flags, large, blockPages[0], blockPages[1], blockPages[2]);
        DmaDevice first = DmaDevice.open(DmaDevice.PLAIN, lab.iommufd);
        DmaDevice second = DmaDevice.open(DmaDevice.STOP_COPY, lab.iommufd);
        VfioContainer container = VfioContainer.open();
        VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PRE_COPY).group())) {
      if (large) {
        first.trackIn(1 << 16);
        second.trackIn(1 << 21);
        first.clip(false);
        second.clip(false);
      }
      Ioas logged = lab.iommufd.allocIoas();
      first.vfio().attach(logged);
      second.vfio().attach(logged);
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      try (DmaDevice third = DmaDevice.open(DmaDevice.PRE_COPY, group)) {
        contained = third;
        Runnable settle = policy == UnmapPolicy.QUERY ? DeviceLogSource.REPORT_WAITS : null;
        logSource = new DeviceLogSource(logged, new DmaMap(), settle);
        Type1Source typed = new Type1Source(container, new DmaMap());
        lab.tracker.add(logSource);
        lab.tracker.add(typed);
        tables = new Space(lab.source, LabDma.BASE, 0);
        // Across 4 GiB, where one range ends and the next begins.
        logs = new Space(logSource, (1L << 20) - SPACE / 2 + 3, 0);
        type1 = new Space(typed, 1L << 10, EXACT);
        spaces = List.of(tables, logs, type1);
        walk(lab, List.of(first, second), policy, steps);
        lab.tracker.stop();
      }
    }
  }

  private void walk(LabDma lab, List<DmaDevice> devices, UnmapPolicy policy, int steps)
      throws InterruptedException {
    join(lab);
    for (DmaDevice device : devices) {
      logSource.add(device.vfio());
      loggers.add(device);
    }
    lab.start();
    AtomicReference<Throwable> failure = new AtomicReference<>();
    Thread writer =
        Thread.ofPlatform()
            .name("writer")
            .uncaughtExceptionHandler((_, e) -> failure.set(e))
            .start(() -> write(lab, steps));
    var random = new SplittableRandom(SEED + 1);
    long[] counts = new long[3];
    try {
      while (writer.isAlive()) {
        round(lab, devices, random, counts);
      }
    } finally {
      writer.join();
    }
    if (failure.get() != null) {
      throw new AssertionError("the writer failed, seed " + SEED, failure.get());
    }
    round(lab, devices, random, counts);
    round(lab, devices, random, counts);
    assertEquals(0, lab.tracker.failures(), () -> "" + lab.tracker.lastFailure());
    assertTrue(maps > 0 && unmaps > 0);
    for (Space space : spaces) {
      assertTrue(space.writes[0] > 0, space.source.name());
      assertEquals(0, space.source.unmapReport().failedQueries(), space.source.name());
    }
    LogCounters counters = lab.counters(0);
    System.out.printf(
        "DmaWalkTest: %s: %d steps: %d maps, %d unmaps, %d writes behind page tables, %d"
            + " logged, %d behind type1; %d re-plans; %d syncs, %d aborts, %d times somebody joined or"
            + " left; %d pages taken, 0 lost; block 0: %d calls, %.1f passes%n",
        policy,
        steps,
        maps,
        unmaps,
        tables.writes[0],
        logs.writes[0],
        type1.writes[0],
        logSource.replans(),
        counters.harvests(),
        counts[0],
        counts[1],
        counts[2],
        counters.queries(),
        counters.mergePasses());
    for (Space space : spaces) {
      System.out.println("DmaWalkTest: " + space.source.name() + ": " + space.source.unmapReport());
    }
  }

  /** The thread that maps, unmaps and writes. */
  private void write(LabDma lab, int steps) {
    var random = new SplittableRandom(SEED);
    for (int step = 0; step < steps; step++) {
      model.lock();
      try {
        Space space = spaces.get(random.nextInt(spaces.size()));
        int kind = random.nextInt(100);
        if (kind < 35) {
          map(lab, space, random);
        } else if (kind < 55) {
          unmap(space, random);
        } else if (random.nextInt(1_000) == 0) {
          unmap(space, 0, SPACE, true);
        } else {
          deviceWrite(lab, space, random);
        }
      } finally {
        model.unlock();
      }
    }
  }

  private void map(LabDma lab, Space space, SplittableRandom random) {
    var mappings = space.mappings;
    int most = random.nextInt(large ? 20 : 1_000) == 0 ? LARGE : random.nextInt(3) == 0 ? 64 : 1;
    int blocks = blockPages.length - space.fromBlock;
    int block = space.fromBlock + (most == LARGE ? 0 : random.nextInt(blocks));
    long pages = most == LARGE ? LARGE : 1 + random.nextInt(most);
    long at;
    var last = mappings.isEmpty() ? null : mappings.floorEntry(random.nextLong(SPACE));
    if (last != null && random.nextBoolean()) {
      // Right behind another, so that there are runs.
      at = last.getKey() + last.getValue().pages;
    } else {
      at = random.nextLong(SPACE);
    }
    at = Math.min(at, SPACE - pages);
    long page = random.nextLong(blockPages[block] - pages + 1);
    if (random.nextInt(3) == 0) {
      page &= -8;
    }
    if (large && most == LARGE && random.nextInt(4) != 0) {
      // Where the page table can have large entries.
      pages = ENTRY * (1 + random.nextInt(2));
      page &= -ENTRY;
      at = (at + space.first & -ENTRY) - space.first;
      if (at < 0) {
        return;
      }
    }
    var before = mappings.floorEntry(at);
    Long after = mappings.ceilingKey(at);
    if (before != null && before.getKey() + before.getValue().pages > at
        || after != null && after < at + pages) {
      return;
    }
    boolean writable = random.nextInt(10) != 0;
    long replans = logSource.replans();
    space.source.map(
        (space.first + at) * LabDma.PAGE, pages * LabDma.PAGE, lab.log(block), page, writable);
    mappings.put(at, new Mapped(pages, block, page, writable));
    if (logSource.replans() != replans) {
      allow(mappings);
    }
    maps++;
  }

  private void unmap(Space space, SplittableRandom random) {
    var mappings = space.mappings;
    Long at = mappings.ceilingKey(random.nextLong(SPACE));
    if (at == null) {
      return;
    }
    Long last = at;
    if (random.nextInt(10) == 0) {
      last = mappings.floorKey(at + random.nextInt(200));
    }
    unmap(space, at, last + mappings.get(last).pages, false);
  }

  private void unmap(Space space, long from, long end, boolean all) {
    var gone = space.mappings.subMap(from, end);
    long bytes = gone.values().stream().mapToLong(Mapped::pages).sum() * LabDma.PAGE;
    long whole = space.source.unmapReport().wholePages();
    assertEquals(
        bytes,
        all
            ? space.source.unmapAll()
            : space.source.unmap((space.first + from) * LabDma.PAGE, (end - from) * LabDma.PAGE));
    if (space.source.unmapReport().wholePages() != whole) {
      allow(gone);
    }
    gone.clear();
    unmaps++;
  }

  private void allow(java.util.Map<Long, Mapped> some) {
    for (Mapped m : some.values()) {
      if (m.writable) {
        allowed[m.block].set((int) m.page, (int) (m.page + m.pages));
      }
    }
  }

  private void deviceWrite(LabDma lab, Space space, SplittableRandom random) {
    Long at = space.mappings.ceilingKey(random.nextLong(SPACE));
    if (at == null || !space.mappings.get(at).writable) {
      return;
    }
    Mapped mapped = space.mappings.get(at);
    long offset = random.nextLong(mapped.pages);
    if (space == tables) {
      assertTrue(lab.write(hwpts.get(random.nextInt(hwpts.size())), at + offset));
    } else {
      DmaDevice device = space == type1 ? contained : loggers.get(random.nextInt(loggers.size()));
      device.write((space.first + at + offset) * LabDma.PAGE, random.nextLong());
    }
    written[mapped.block].set((int) (mapped.page + offset));
    space.writes[0]++;
  }

  private void join(LabDma lab) {
    Hwpt hwpt = lab.hwpt();
    lab.source.add(hwpt);
    hwpts.add(hwpt);
    allow(tables.mappings);
  }

  private void joinOrLeave(LabDma lab, List<DmaDevice> devices, SplittableRandom random) {
    model.lock();
    try {
      if (random.nextInt(3) == 0) {
        DmaDevice device = devices.get(random.nextInt(devices.size()));
        if (!loggers.contains(device)) {
          logSource.add(device.vfio());
          loggers.add(device);
          allow(logs.mappings);
        } else if (loggers.size() > 1) {
          loggers.remove(device);
          logSource.remove(device.vfio());
        }
      } else if (hwpts.size() < 3 && random.nextBoolean()) {
        join(lab);
      } else if (hwpts.size() > 1) {
        Hwpt hwpt = hwpts.remove(random.nextInt(hwpts.size()));
        lab.source.remove(hwpt);
        hwpt.close();
      }
    } finally {
      model.unlock();
    }
  }

  private void round(LabDma lab, List<DmaDevice> devices, SplittableRandom random, long[] counts) {
    if (random.nextInt(12) == 0) {
      joinOrLeave(lab, devices, random);
      counts[1]++;
    }
    BitSet[] must = sets();
    BitSet[] reasons = sets();
    model.lock();
    try {
      for (int i = 0; i < must.length; i++) {
        must[i].or(written[i]);
        reasons[i].or(allowed[i]);
        // Whatever was marked by now comes with this epoch, and with no later one.
        allowed[i].clear();
      }
    } finally {
      model.unlock();
    }
    lab.tracker.sync();
    lab.tracker.harvest();
    boolean abort = random.nextInt(4) == 0;
    for (int i = 0; i < must.length; i++) {
      BitSet taken = LabDma.pagesOf(lab.log(i).epoch());
      assertNotNull(taken);
      counts[2] += taken.cardinality();
      BitSet lost = (BitSet) must[i].clone();
      lost.andNot(taken);
      assertEquals(new BitSet(), lost, "block " + i + " lost pages, seed " + SEED);
      model.lock();
      try {
        BitSet extra = (BitSet) taken.clone();
        extra.andNot(written[i]);
        extra.andNot(reasons[i]);
        extra.andNot(allowed[i]);
        if (i < EXACT && !large) {
          assertEquals(
              new BitSet(), extra, "block " + i + " has pages for no reason, seed " + SEED);
        }
        if (abort) {
          allowed[i].or(taken);
          continue;
        }
        // Written again while it was taken: the bit may be here or come with the next sync.
        BitSet during = (BitSet) written[i].clone();
        during.and(taken);
        written[i].andNot(taken);
        allowed[i].or(during);
      } finally {
        model.unlock();
      }
    }
    if (abort) {
      lab.tracker.abort();
      counts[0]++;
    } else {
      lab.tracker.commit();
    }
  }
}
