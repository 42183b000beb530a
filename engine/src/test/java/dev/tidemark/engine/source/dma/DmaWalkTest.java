package dev.tidemark.engine.source.dma;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.ffm.iommufd.Hwpt;
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
 * A random walk against a model: one thread maps, unmaps and writes as a device, another syncs,
 * harvests, commits, aborts, and adds and removes page tables. No page that was written may be
 * missing from an epoch, and none may be in it without a reason.
 */
@Tag("lab-mock")
class DmaWalkTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int STEPS = Integer.getInteger("tidemark.walk.steps", 20_000);
  private static final int[] BLOCK_PAGES = {4096, 1001};
  private static final long SPACE = 16_384;
  private static final int LARGE = 2048;

  static {
    System.out.println("DmaWalkTest: -Dtidemark.seed=" + SEED);
  }

  private record Mapped(long pages, int block, long page, boolean writable) {}

  /** Held for each step of the writer, and for each look at the model. Never while syncing. */
  private final ReentrantLock model = new ReentrantLock();

  private final TreeMap<Long, Mapped> mappings = new TreeMap<>();
  private final List<Hwpt> hwpts = new ArrayList<>();

  /** Written since the last snapshot. */
  private final BitSet[] written = sets();

  /** Not written, but may be dirty: aborted, strict, joined, or written while it was taken. */
  private final BitSet[] allowed = sets();

  private UnmapPolicy policy;
  private long writes;
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
    this.policy = policy;
    int steps = policy == UnmapPolicy.QUERY ? STEPS : STEPS / 4;
    try (LabDma lab = new LabDma(policy, BLOCK_PAGES[0], BLOCK_PAGES[1])) {
      join(lab);
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
          round(lab, random, counts);
        }
      } finally {
        writer.join();
      }
      if (failure.get() != null) {
        throw new AssertionError("the writer failed, seed " + SEED, failure.get());
      }
      round(lab, random, counts);
      round(lab, random, counts);
      assertEquals(0, lab.tracker.failures(), () -> "" + lab.tracker.lastFailure());
      assertTrue(writes > 0 && maps > 0 && unmaps > 0);
      LogCounters counters = lab.counters(0);
      System.out.printf(
          "DmaWalkTest: %s: %d steps: %d maps, %d unmaps, %d writes; %d syncs, %d aborts, %d page"
              + " tables joined or left; %d pages taken, 0 lost; block 0: %d calls, %.1f passes; %s%n",
          policy,
          steps,
          maps,
          unmaps,
          writes,
          counters.harvests(),
          counts[0],
          counts[1],
          counts[2],
          counters.queries(),
          counters.mergePasses(),
          lab.source.unmapReport());
    }
  }

  /** The thread that maps, unmaps and writes. */
  private void write(LabDma lab, int steps) {
    var random = new SplittableRandom(SEED);
    for (int step = 0; step < steps; step++) {
      model.lock();
      try {
        int kind = random.nextInt(100);
        if (kind < 35) {
          map(lab, random);
        } else if (kind < 55) {
          unmap(lab, random);
        } else if (random.nextInt(1_000) == 0) {
          forgetIfStrict(0, SPACE);
          long pages = mappings.values().stream().mapToLong(Mapped::pages).sum();
          assertEquals(pages * LabDma.PAGE, lab.source.unmapAll());
          mappings.clear();
        } else {
          deviceWrite(lab, random);
        }
      } finally {
        model.unlock();
      }
    }
  }

  private void map(LabDma lab, SplittableRandom random) {
    int most = random.nextInt(1_000) == 0 ? LARGE : random.nextInt(3) == 0 ? 64 : 1;
    int block = most == LARGE ? 0 : random.nextInt(BLOCK_PAGES.length);
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
    long page = random.nextLong(BLOCK_PAGES[block] - pages + 1);
    if (random.nextInt(3) == 0) {
      page &= -8;
    }
    var before = mappings.floorEntry(at);
    Long after = mappings.ceilingKey(at);
    if (before != null && before.getKey() + before.getValue().pages > at
        || after != null && after < at + pages) {
      return;
    }
    boolean writable = random.nextInt(10) != 0;
    lab.map(at, pages, block, page, writable);
    mappings.put(at, new Mapped(pages, block, page, writable));
    maps++;
  }

  private void unmap(LabDma lab, SplittableRandom random) {
    Long at = mappings.ceilingKey(random.nextLong(SPACE));
    if (at == null) {
      return;
    }
    Long last = at;
    if (random.nextInt(10) == 0) {
      last = mappings.floorKey(at + random.nextInt(200));
    }
    long end = last + mappings.get(last).pages;
    forgetIfStrict(at, end);
    var gone = mappings.subMap(at, end);
    long pages = gone.values().stream().mapToLong(Mapped::pages).sum();
    assertEquals(pages, lab.unmap(at, end - at));
    gone.clear();
    unmaps++;
  }

  private void forgetIfStrict(long from, long end) {
    if (policy == UnmapPolicy.STRICT) {
      allow(mappings.subMap(from, end));
    }
  }

  private void allow(java.util.Map<Long, Mapped> some) {
    for (Mapped m : some.values()) {
      if (m.writable) {
        allowed[m.block].set((int) m.page, (int) (m.page + m.pages));
      }
    }
  }

  private void deviceWrite(LabDma lab, SplittableRandom random) {
    Long at = mappings.ceilingKey(random.nextLong(SPACE));
    if (at == null || !mappings.get(at).writable) {
      return;
    }
    Mapped mapped = mappings.get(at);
    long offset = random.nextLong(mapped.pages);
    assertTrue(lab.write(hwpts.get(random.nextInt(hwpts.size())), at + offset));
    written[mapped.block].set((int) (mapped.page + offset));
    writes++;
  }

  private void join(LabDma lab) {
    Hwpt hwpt = lab.hwpt();
    lab.source.add(hwpt);
    hwpts.add(hwpt);
    allow(mappings);
  }

  private void joinOrLeave(LabDma lab, SplittableRandom random) {
    model.lock();
    try {
      if (hwpts.size() < 3 && random.nextBoolean()) {
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

  private void round(LabDma lab, SplittableRandom random, long[] counts) {
    if (random.nextInt(12) == 0) {
      joinOrLeave(lab, random);
      counts[1]++;
    }
    BitSet[] must = sets();
    model.lock();
    try {
      for (int i = 0; i < must.length; i++) {
        must[i].or(written[i]);
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
        extra.andNot(allowed[i]);
        assertEquals(new BitSet(), extra, "block " + i + " has pages for no reason, seed " + SEED);
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
