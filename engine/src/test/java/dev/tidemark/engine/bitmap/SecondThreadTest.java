package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.CheckedBitmapOps.WORD;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Mapping;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIf;

class SecondThreadTest {
  private static final long BYTES = (16 << 20) + 4096 + 64;

  private final SplittableRandom random = Seed.random();

  static boolean hasCores() {
    return Runtime.getRuntime().availableProcessors() > 1;
  }

  private static SecondThread take(MemorySegment memory) {
    return SecondThread.take(BYTES, memory, memory);
  }

  /** Passes of every length, one after the other, so that a late helper meets the next. */
  @Test
  @EnabledIf("hasCores")
  void doesEveryPartOnce() {
    try (Mapping memory = Mapping.guarded(64)) {
      for (int round = 0; round < 20_000; round++) {
        long bytes = random.nextLong(1, 20 << 20);
        int parts = (int) ((bytes + (1 << 20) - 1) >>> 20);
        AtomicIntegerArray times = new AtomicIntegerArray(parts);
        SecondThread second = take(memory.segment());
        assertNotNull(second);
        assertNull(take(memory.segment()), "one pass at a time");
        long sum =
            second.run(
                (from, end) -> {
                  times.incrementAndGet((int) (from >>> 20));
                  return end - from;
                },
                bytes);
        second.release();
        assertEquals(bytes, sum);
        for (int part = 0; part < parts; part++) {
          assertEquals(1, times.get(part), "part " + part + " of " + parts);
        }
      }
    }
  }

  @Test
  @EnabledIf("hasCores")
  void saysThatAPartFailedAndGoesOn() {
    try (Mapping memory = Mapping.guarded(64)) {
      for (int round = 0; round < 100; round++) {
        SecondThread second = take(memory.segment());
        assertThrows(
            IllegalStateException.class,
            () ->
                second.run(
                    (from, _) -> {
                      if (from == 3 << 20) {
                        throw new IllegalStateException("as asked for");
                      }
                      return 0;
                    },
                    8 << 20));
        assertEquals(8 << 20, second.run((from, end) -> end - from, 8 << 20));
        second.release();
      }
    }
  }

  /** While its interrupt status is set no park waits: it would spin for ever. */
  @Test
  @EnabledIf("hasCores")
  void waitsAgainAfterAnInterruptAndInheritsNothing() throws InterruptedException {
    try (Mapping memory = Mapping.guarded(64)) {
      SecondThread second = take(memory.segment());
      assertNotNull(second);
      second.release();
    }
    Thread thread =
        Thread.getAllStackTraces().keySet().stream()
            .filter(t -> t.getName().equals("tidemark-scan"))
            .findFirst()
            .orElseThrow();
    assertEquals("system", thread.getThreadGroup().getName());
    assertEquals(ClassLoader.getSystemClassLoader(), thread.getContextClassLoader());
    thread.interrupt();
    boolean waits = false;
    for (int i = 0; i < 3000 && !waits; i++) {
      Thread.sleep(10);
      waits = !thread.isInterrupted() && thread.getState() == Thread.State.WAITING;
    }
    assertTrue(waits, "still " + thread.getState());
    doesEveryPartOnce();
  }

  @Test
  void leavesAloneWhatItMayNotTouch() {
    try (Arena arena = Arena.ofConfined();
        Mapping memory = Mapping.guarded(64)) {
      assertNull(take(arena.allocate(64)));
      assertNull(SecondThread.take(1 << 20, memory.segment(), memory.segment()), "too short");
    }
  }

  /** Every pass that is shared, beside the scalar twin, and without garbage. */
  @Test
  void sharesPassesOverLargeBitmaps() {
    BitmapOps ops = Bitmaps.ops();
    BitmapOps scalar = Bitmaps.scalar();
    long bits = BYTES * 8;
    long words = BYTES / 8;
    try (Mapping source = Mapping.guarded(BYTES);
        Mapping mine = Mapping.guarded(BYTES);
        Mapping theirs = Mapping.guarded(BYTES);
        Mapping lines = Mapping.guarded(BYTES / 512 + 64 & -64);
        Mapping theirLines = Mapping.guarded(BYTES / 512 + 64 & -64)) {
      for (int i = 0; i < 100_000; i++) {
        source.segment().set(WORD, random.nextLong(words) << 3, random.nextLong());
        mine.segment().set(WORD, random.nextLong(words) << 3, random.nextLong());
      }
      theirs.segment().copyFrom(mine.segment());
      MemorySegment src = source.segment();
      assertEquals(
          scalar.orCount(theirs.segment(), 0, src, 0, bits),
          ops.orCount(mine.segment(), 0, src, 0, bits));
      assertEquals(-1, mine.segment().mismatch(theirs.segment()));
      assertEquals(
          scalar.summarize(theirs.segment(), words, theirLines.segment()),
          ops.summarize(mine.segment(), words, lines.segment()));
      assertEquals(-1, lines.segment().mismatch(theirLines.segment()));
      // Lines that nobody names keep what they have.
      for (long word = 0; word < words; word += 4099) {
        lines.segment().set(WORD, word >>> 9 << 3, 0);
      }
      scalar.clearLines(theirs.segment(), words, lines.segment());
      ops.clearLines(mine.segment(), words, lines.segment());
      assertEquals(-1, mine.segment().mismatch(theirs.segment()));
      assertTrue(ops.any(mine.segment(), 0, bits));
      mine.segment().fill((byte) 0);
      assertEquals(
          scalar.cardinality(src, 64, bits - 64),
          ops.orCountClear(mine.segment(), 0, src, 64, bits - 64));
      assertEquals(0, ops.cardinality(src, 64, bits - 64));
    }
  }

  /** By one thread, while another pass has the second: more than one call summarizes. */
  @Test
  @EnabledIf("hasCores")
  void summarizesLargeBitmapsAlone() {
    long words = BYTES / 8;
    try (Mapping map = Mapping.guarded(BYTES);
        Mapping mine = Mapping.guarded(BYTES / 512 + 64 & -64);
        Mapping theirs = Mapping.guarded(BYTES / 512 + 64 & -64)) {
      SecondThread second = take(map.segment());
      assertNotNull(second);
      try {
        map.segment().fill((byte) -1);
        for (int round = 0; round < 3; round++) {
          assertEquals(
              Bitmaps.scalar().summarize(map.segment(), words, theirs.segment()),
              Bitmaps.ops().summarize(map.segment(), words, mine.segment()));
          assertEquals(-1, mine.segment().mismatch(theirs.segment()));
          for (int i = 0; i < 200_000; i++) {
            map.segment().asSlice(random.nextLong(words >>> 3) << 6, 64).fill((byte) 0);
          }
        }
      } finally {
        second.release();
      }
    }
  }
}
