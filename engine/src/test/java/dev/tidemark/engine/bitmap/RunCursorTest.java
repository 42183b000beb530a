package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.CheckedBitmapOps.WORD;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.BitSet;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class RunCursorTest {
  private final SplittableRandom random = Seed.random();
  private final RunCursor cursor = new RunCursor();

  private MemorySegment random(Arena arena, long words) {
    MemorySegment map = arena.allocate(words * 8 + 8, 8).asSlice(0, words * 8);
    int density = random.nextInt(6);
    for (long i = 0; i < words; i++) {
      map.set(
          WORD,
          i * 8,
          switch (density) {
            case 0 -> random.nextInt(40) == 0 ? 1L << random.nextInt(64) : 0;
            case 1 -> random.nextLong();
            case 2 -> -1;
            case 4 -> 0xaaaaaaaaaaaaaaaaL;
            case 3 -> random.nextInt(12) < 11 ? -1 : -1L << random.nextInt(64);
            default -> random.nextInt(30) == 0 ? -1 : 0;
          });
    }
    return map;
  }

  private void assertRuns(BitSet bits, long from, long end) {
    int at = bits.nextSetBit((int) from);
    while (at >= 0 && at < end) {
      int stop = (int) Math.min(bits.nextClearBit(at), end);
      assertTrue(cursor.next(), "a run at " + at);
      assertEquals(at, cursor.start());
      assertEquals(stop - at, cursor.length());
      at = bits.nextSetBit(stop);
    }
    assertFalse(cursor.next());
    assertFalse(cursor.next(), "still none");
    assertEquals(0, cursor.length());
  }

  @Test
  void findsEveryRunOfARange() {
    try (Arena arena = Arena.ofConfined()) {
      for (int i = 0; i < 3000; i++) {
        MemorySegment map = random(arena, random.nextInt(i % 10 == 0 ? 700 : 70));
        long from = random.nextLong(map.byteSize() * 8 + 1);
        long end = random.nextLong(from, map.byteSize() * 8 + 1);
        cursor.reset(map, from, end);
        assertRuns(Model.of(map), from, end);
      }
    }
  }

  @Test
  void findsEveryRunThroughASummary() {
    try (Arena arena = Arena.ofConfined()) {
      for (int i = 0; i < 300; i++) {
        long words = random.nextLong(1600);
        MemorySegment map = random(arena, words);
        MemorySegment lines = arena.allocate((words + 511) / 512 * 8, 8);
        Bitmaps.ops().summarize(map, words, lines);
        long end = Math.max(0, words * 64 - random.nextLong(600));
        cursor.reset(map, lines, end);
        assertRuns(Model.of(map), 0, end);
      }
    }
  }

  @Test
  void startsAgainAfterReset() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment map = arena.allocate(64, 8);
      Bitmaps.ops().set(map, 60, 10);
      for (int i = 0; i < 2; i++) {
        cursor.reset(map, 0, 512);
        assertTrue(cursor.next());
        assertEquals(60, cursor.start());
        assertEquals(10, cursor.length());
      }
      cursor.reset(map, 65, 67);
      assertTrue(cursor.next());
      assertEquals(65, cursor.start());
      assertEquals(2, cursor.length());
      assertFalse(cursor.next());
    }
  }

  @Test
  void refusesARangeTheMapDoesNotHold() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment map = arena.allocate(64, 8);
      assertThrows(IndexOutOfBoundsException.class, () -> cursor.reset(map, 0, 513));
      assertThrows(IndexOutOfBoundsException.class, () -> cursor.reset(map, 9, 8));
      assertThrows(
          IndexOutOfBoundsException.class, () -> cursor.reset(map, map.asSlice(0, 0), 512));
    }
  }
}
