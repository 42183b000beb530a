package dev.tidemark.engine.log;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.BitSet;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RamBlockLogTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());

  static {
    System.out.println("RamBlockLogTest: -Dtidemark.seed=" + SEED);
  }

  private static Mapping memory(long pages) {
    return Mapping.anonymous(pages * Pages.SIZE);
  }

  private static BitSet pagesOf(Epoch epoch) {
    BitSet pages = new BitSet();
    RunCursor runs = epoch.runs();
    long last = -2;
    for (int found = runs.batch(); found > 0; found = runs.batch()) {
      for (int run = 0; run < found; run++) {
        long start = runs.start(run);
        assertTrue(start > last + 1, "runs must be apart, in order and maximal");
        pages.set((int) start, (int) (start + runs.length(run)));
        last = start + runs.length(run) - 1;
      }
    }
    return pages;
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 63, 64, 65, 511, 512, 513, 4096, 32_768, 32_769, 100_001})
  void everyPageOfAnyBlockCanBeDirtyAndNoOther(long pages) {
    try (Mapping memory = memory(pages);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      log.markAll();
      Epoch epoch = log.harvest();
      assertEquals(pages, epoch.pages());
      RunCursor runs = epoch.runs();
      assertEquals(1, runs.batch());
      assertEquals(0, runs.start(0));
      assertEquals(pages, runs.length(0));
      assertEquals(0, runs.batch());
      epoch.commit();
      assertEquals(0, log.harvest().pages());
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 64, 513, 100_001})
  void aFullEpochThatWasGivenBackIsFullAgainAndACommittedOneIsEmpty(long pages) {
    try (Mapping memory = memory(pages);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      log.markAll();
      log.harvest().abort();
      assertEquals(pages, log.dirtyPages());
      Epoch epoch = log.harvest();
      assertEquals(pages, epoch.pages());
      assertEquals(pages, pagesOf(epoch).cardinality());
      // Whatever comes meanwhile belongs to the next.
      log.mark(pages - 1, 1);
      log.mergeMarks();
      epoch.commit();
      epoch = log.harvest();
      assertEquals(1, epoch.pages());
      assertTrue(pagesOf(epoch).get((int) pages - 1));
      epoch.abort();
      assertEquals(1, log.harvest().pages());
    }
  }

  @Test
  void aRandomWalkAgreesWithABitSet() {
    var random = new SplittableRandom(SEED);
    for (int trial = 0; trial < 30; trial++) {
      int pages = 1 + random.nextInt(random.nextBoolean() ? 200 : 20_000);
      String at = "seed " + SEED + ", trial " + trial + ", " + pages + " pages";
      BitSet dirty = new BitSet();
      BitSet taken = null;
      try (Mapping memory = memory(pages);
          Mapping scratch = Mapping.guarded((pages + 511) / 512 * 64L);
          RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
        for (int step = 0; step < 200; step++) {
          int first = random.nextInt(pages);
          int count = 1 + random.nextInt(Math.min(pages - first, 150));
          switch (random.nextInt(6)) {
            case 0 -> {
              log.mark(first, count);
              log.mergeMarks();
              dirty.set(first, first + count);
            }
            case 1 -> {
              try (FillPlane fill = log.fill()) {
                fill.set(first, count);
              }
              dirty.set(first, first + count);
            }
            case 2, 3 -> {
              BitSet answer = new BitSet();
              for (int i = 0; i < count; i++) {
                if (random.nextInt(3) == 0) {
                  answer.set(i);
                }
              }
              MemorySegment source = scratch.segment();
              source.fill((byte) 0);
              answer.stream()
                  .forEach(
                      bit -> {
                        long word = bit >>> 6 << 3;
                        source.set(
                            ValueLayout.JAVA_LONG,
                            word,
                            source.get(ValueLayout.JAVA_LONG, word) | 1L << (bit & 63));
                      });
              BitSet before = (BitSet) dirty.clone();
              for (int bit = answer.nextSetBit(0); bit >= 0; bit = answer.nextSetBit(bit + 1)) {
                dirty.set(first + bit);
              }
              try (FillPlane fill = log.fill()) {
                assertEquals(
                    dirty.cardinality() - before.cardinality(),
                    fill.merge(source, 0, first, count),
                    at);
              }
            }
            case 4 -> {
              if (taken == null) {
                Epoch epoch = log.harvest();
                assertEquals(dirty.cardinality(), epoch.pages(), at);
                assertEquals(dirty, pagesOf(epoch), at);
                assertEquals(dirty, pagesOf(epoch), at + ": runs start anew");
                taken = dirty;
                dirty = new BitSet();
              }
            }
            default -> {
              if (taken != null) {
                if (random.nextBoolean()) {
                  log.epoch().commit();
                } else {
                  log.epoch().abort();
                  dirty.or(taken);
                }
                taken = null;
              }
            }
          }
          assertEquals(dirty.cardinality(), log.dirtyPages(), at + ", step " + step);
        }
      }
    }
  }

  @Test
  void closingAnEpochGivesItsPagesBack() {
    try (Mapping memory = memory(1000);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      log.mark(0, 1);
      log.mark(999, 1);
      log.mergeMarks();
      try (Epoch epoch = log.harvest()) {
        assertEquals(2, epoch.pages());
        log.mark(500, 3);
        log.mergeMarks();
      }
      Epoch epoch = log.harvest();
      assertEquals(5, epoch.pages());
      assertTrue(pagesOf(epoch).get(999));
    }
  }

  @Test
  void aSecondEpochOfOneLogIsRefusedUntilTheFirstEnded() {
    try (Mapping memory = memory(10);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      Epoch epoch = log.harvest();
      assertThrows(IllegalStateException.class, log::harvest);
      epoch.commit();
      assertThrows(IllegalStateException.class, epoch::commit);
      assertThrows(IllegalStateException.class, epoch::abort);
      assertThrows(IllegalStateException.class, epoch::runs);
      epoch.close();
      log.harvest().commit();
    }
  }

  @Test
  void pagesOutsideTheBlockAreRefused() {
    try (Mapping memory = memory(100);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()));
        FillPlane fill = log.fill()) {
      long[][] wrong = {
        {-1, 1}, {100, 1}, {99, 2}, {0, 101}, {Long.MAX_VALUE, 1}, {1, Long.MAX_VALUE}
      };
      for (long[] range : wrong) {
        assertThrows(IndexOutOfBoundsException.class, () -> log.mark(range[0], range[1]));
        assertThrows(IndexOutOfBoundsException.class, () -> fill.set(range[0], range[1]));
        assertThrows(
            IndexOutOfBoundsException.class,
            () -> fill.merge(fill.segment(), 0, range[0], range[1]));
      }
      assertThrows(IndexOutOfBoundsException.class, () -> log.mark(5, 0));
    }
  }

  @Test
  void bitsThatAKernelSetsBehindTheLastPageAreNoPages() {
    try (Mapping memory = memory(70);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      try (FillPlane fill = log.fill()) {
        fill.segment().fill((byte) -1);
      }
      Epoch epoch = log.harvest();
      assertEquals(70, epoch.pages());
      assertEquals(70, pagesOf(epoch).cardinality());
    }
  }

  @Test
  void everyMarkThatReturnedBeforeASyncIsInItsEpoch() throws InterruptedException {
    int pages = 70_000;
    try (Mapping memory = memory(pages);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      // Each thread owns every second page and says how far it has come; nothing it said may be
      // missing.
      var reached = new long[2][1];
      var failure = new AtomicReference<Throwable>();
      var progress = java.lang.invoke.MethodHandles.arrayElementVarHandle(long[].class);
      Thread[] threads = new Thread[2];
      for (int t = 0; t < 2; t++) {
        int own = t;
        threads[t] =
            Thread.ofPlatform()
                .start(
                    () -> {
                      try {
                        for (int i = 0; 2 * i + own < pages; i++) {
                          log.mark(2L * i + own, 1);
                          progress.setRelease(reached[own], 0, (long) i + 1);
                        }
                      } catch (Throwable e) {
                        failure.set(e);
                      }
                    });
      }
      BitSet seen = new BitSet();
      boolean last = false;
      while (!last) {
        last = !threads[0].isAlive() && !threads[1].isAlive();
        long[] said = new long[2];
        for (int t = 0; t < 2; t++) {
          said[t] = (long) progress.getAcquire(reached[t], 0);
        }
        log.mergeMarks();
        try (Epoch epoch = log.harvest()) {
          seen.or(pagesOf(epoch));
          epoch.commit();
        }
        for (int t = 0; t < 2; t++) {
          for (int i = 0; i < said[t]; i++) {
            assertTrue(seen.get(2 * i + t), "page " + (2 * i + t) + " was marked before the sync");
          }
        }
      }
      assertEquals(null, failure.get());
      assertEquals(pages, seen.cardinality());
    }
  }

  @Test
  void workOnMarksIsProportionalToMarks() {
    try (Mapping memory = memory(1 << 20);
        RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()))) {
      log.mergeMarks();
      assertEquals(0, log.counters().markWords());
      log.mark(70_000, 2);
      log.mergeMarks();
      assertEquals(64, log.counters().markWords(), "one summary bit stands for 64 words");
      log.mergeMarks();
      assertEquals(64, log.counters().markWords());
    }
  }

  @Test
  void afterCloseEverythingRefusesAndNothingCrashes() {
    try (Mapping memory = memory(100)) {
      RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()));
      Epoch epoch = log.harvest();
      log.close();
      log.close();
      assertThrows(ClosedException.class, log::fill);
      assertThrows(ClosedException.class, log::harvest);
      assertThrows(ClosedException.class, epoch::runs);
      assertThrows(IllegalStateException.class, () -> log.mark(0, 1));
    }
  }

  @Test
  void blocksThatAreNoWholePagesAreRefused() {
    try (Mapping memory = memory(2)) {
      MemorySegment segment = memory.segment();
      assertThrows(
          IllegalArgumentException.class, () -> new RamBlock("a", segment.asSlice(0, 100)));
      assertThrows(
          IllegalArgumentException.class, () -> new RamBlock("a", segment.asSlice(64, Pages.SIZE)));
      assertThrows(IllegalArgumentException.class, () -> new RamBlock("", segment));
      assertThrows(IllegalArgumentException.class, () -> new RamBlock("x".repeat(256), segment));
      assertThrows(
          IllegalArgumentException.class,
          () -> new RamBlock("a", MemorySegment.ofArray(new byte[4096])));
      assertEquals(2, new RamBlock("x".repeat(255), segment).pages());
    }
  }
}
