package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.CheckedBitmapOps.WORD;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Mapping;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.BitSet;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RunCursorTest {
  private final SplittableRandom random = Seed.random();
  private final RunCursor[] cursors = cursors();
  private RunCursor cursor = cursors[0];

  /** The chosen one, and where there are vectors one that lists as on a processor with fewer. */
  private static RunCursor[] cursors() {
    return Bitmaps.vector().isEmpty()
        ? new RunCursor[] {new RunCursor()}
        : new RunCursor[] {new RunCursor(), new RunCursor(new VectorBitmapOps(false))};
  }

  private MemorySegment random(Arena arena, long words) {
    cursor = cursors[random.nextInt(cursors.length)];
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
    int run = 0;
    int found = cursor.batch();
    while (at >= 0 && at < end) {
      int stop = (int) Math.min(bits.nextClearBit(at), end);
      assertTrue(run < found, "a run at " + at);
      assertEquals(at, cursor.start(run));
      assertEquals(stop - at, cursor.length(run));
      at = bits.nextSetBit(stop);
      if (++run == found) {
        found = cursor.batch();
        run = 0;
      }
    }
    assertEquals(0, found);
    assertEquals(0, cursor.batch(), "still none");
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
  void findsEveryRunOfManyBatchesThroughASummary() {
    long words = 1 << 14;
    try (Mapping mapping = Mapping.guarded(words * 8);
        Mapping lines = Mapping.guarded(words / 64)) {
      MemorySegment map = mapping.segment();
      for (int i = 0; i < 200; i++) {
        // Runs of a line or so, or of many, with lines between them: batches, lists of lines and
        // lists of words end where a run and a gap meet.
        map.fill((byte) 0);
        int longest = 1 + random.nextInt(random.nextInt(4) == 0 ? 40_000 : 700);
        for (long at = random.nextInt(600); at + longest + 512 < words * 64; ) {
          long length = 1 + random.nextInt(longest);
          if (random.nextInt(4) == 0) {
            // To the end of a line, the next of which is not named.
            length = (at + length + 511 & -512) - at;
          }
          Bitmaps.ops().set(map, at, length);
          at += length + 1 + random.nextInt(longest);
          at = random.nextInt(4) == 0 ? (at + 511) / 512 * 512 : at;
        }
        Bitmaps.ops().summarize(map, words, lines.segment());
        cursor.reset(map, lines.segment(), words * 64);
        assertRuns(Model.of(map), 0, words * 64);
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
        assertEquals(1, cursor.batch());
        assertEquals(60, cursor.start(0));
        assertEquals(10, cursor.length(0));
      }
      cursor.reset(map, 65, 67);
      assertEquals(1, cursor.batch());
      assertEquals(65, cursor.start(0));
      assertEquals(2, cursor.length(0));
      assertEquals(0, cursor.batch());
    }
  }

  @Test
  void goesThroughMoreThanItLooksAtInOneGo() {
    long bytes = (1 << 27) + 4096;
    try (Mapping mapping = Mapping.anonymous(bytes)) {
      MemorySegment map = mapping.segment();
      for (long clean : new long[] {-1, 77, (1L << 30) - 1, 1L << 30, (1L << 30) + 512}) {
        map.fill((byte) -1);
        if (clean >= 0) {
          Bitmaps.ops().clear(map, clean, 1);
        }
        cursor.reset(map, 3, bytes * 8 - 5);
        long at = 3;
        for (int found = cursor.batch(); found > 0; found = cursor.batch()) {
          for (int run = 0; run < found; run++) {
            at += at == clean ? 1 : 0;
            assertEquals(at, cursor.start(run));
            assertTrue(cursor.length(run) > 0);
            at += cursor.length(run);
            assertTrue(at <= clean || cursor.start(run) > clean || clean < 0, "over " + clean);
          }
        }
        assertEquals(bytes * 8 - 5, at, "clean at " + clean);
      }
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

  @Test
  void refusesMoreBitsThanItCanName(@TempDir Path folder) throws IOException {
    // A file of holes.
    try (FileChannel file =
            FileChannel.open(
                folder.resolve("bitmap"),
                StandardOpenOption.CREATE,
                StandardOpenOption.READ,
                StandardOpenOption.WRITE);
        Arena arena = Arena.ofConfined()) {
      MemorySegment map = file.map(FileChannel.MapMode.READ_WRITE, 0, (1L << 37) + 8, arena);
      cursor.reset(map, 0, 1L << 40);
      assertThrows(IllegalArgumentException.class, () -> cursor.reset(map, 0, (1L << 40) + 1));
    }
  }

  @Test
  void allBitsOfALargeBitmapAreOneRunInPartsAndNoneIsRead() {
    RunCursor runs = new RunCursor();
    for (long end : new long[] {0, 1, 1L << 30, (1L << 30) + 1, (5L << 30) + 77}) {
      runs.resetToAll(end, null);
      long next = 0;
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        assertEquals(1, found);
        assertEquals(next, runs.start(0));
        next += runs.length(0);
      }
      assertEquals(end, next);
    }
  }
}
