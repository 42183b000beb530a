package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.CheckedBitmapOps.WORD;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.util.BitSet;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Both twins against the model, next to guard pages on both sides. */
@ParameterizedClass(name = "{0}")
@MethodSource("twins")
class BitmapOpsTest {
  /** Enough for several of the widest vectors, and an edge. */
  private static final int WORDS = 8 * 5 + 3;

  private static final long BITS = WORDS * 64L;

  private static final String[] DENSITIES = {"empty", "sparse", "half", "full", "ends"};

  record Twin(BitmapOps ops) {
    @Override
    public String toString() {
      return ops.getClass().getSimpleName();
    }
  }

  static List<Twin> twins() {
    return Stream.concat(Stream.of(Bitmaps.scalar()), Bitmaps.vector().stream())
        .map(Twin::new)
        .toList();
  }

  private final BitmapOps ops;
  private final SplittableRandom random = Seed.random();
  private final Guarded dstPage = new Guarded();
  private final Guarded srcPage = new Guarded();

  BitmapOpsTest(Twin twin) {
    ops = twin.ops;
  }

  @AfterEach
  void unmap() {
    dstPage.close();
    srcPage.close();
  }

  /** Memory that ends at one guard page or begins at the other. */
  private MemorySegment place(Guarded page, long words) {
    long bytes = words * 8;
    return page.page().asSlice(random.nextBoolean() ? 0 : Pages.SIZE - bytes, bytes);
  }

  private BitSet fill(MemorySegment map, String density) {
    long words = map.byteSize() / 8;
    for (long i = 0; i < words; i++) {
      map.set(
          WORD,
          i * 8,
          switch (density) {
            case "empty" -> 0;
            case "sparse" -> random.nextInt(8) == 0 ? 1L << random.nextInt(64) : 0;
            case "half" -> random.nextLong();
            case "full" -> -1;
            case "ends" -> 1L | 1L << 63;
            default -> throw new IllegalArgumentException(density);
          });
    }
    return Model.of(map);
  }

  private String density() {
    return DENSITIES[random.nextInt(DENSITIES.length)];
  }

  private interface Check {
    void at(long dstBit, long srcBit, long bits);
  }

  /** Every bit offset on both sides, with lengths of every kind. */
  private void everyOffset(Check check) {
    for (int dstBit = 0; dstBit < 64; dstBit++) {
      for (int srcBit = 0; srcBit < 64; srcBit++) {
        long most = BITS - Math.max(dstBit, srcBit);
        for (long bits :
            new long[] {
              most, random.nextLong(130), random.nextLong(most + 1), most - random.nextLong(65)
            }) {
          check.at(dstBit, srcBit, bits);
        }
      }
    }
    for (long bits = 0; bits <= BITS - 128; bits++) {
      check.at(random.nextLong(128), random.nextLong(128), bits);
    }
  }

  private String at(long dstBit, long srcBit, long bits) {
    return bits + " bits from " + srcBit + " to " + dstBit;
  }

  @ParameterizedTest
  @ValueSource(strings = {"or", "orCount", "orCountClear", "andNot"})
  void pairOperationsEqualTheModelAtEveryOffset(String name) {
    everyOffset(
        (dstBit, srcBit, bits) -> {
          MemorySegment dst = place(dstPage, WORDS);
          MemorySegment src = place(srcPage, WORDS);
          fill(dst, density());
          fill(src, density());
          comparePair(name, dst, dstBit, src, srcBit, bits);
        });
  }

  private void comparePair(
      String name, MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    BitSet expectedDst = Model.of(dst);
    BitSet expectedSrc = Model.of(src);
    String where = at(dstBit, srcBit, bits);
    long set;
    switch (name) {
      case "or" -> {
        Model.or(expectedDst, dstBit, expectedSrc, srcBit, bits);
        ops.or(dst, dstBit, src, srcBit, bits);
      }
      case "orCount" -> {
        set = Model.or(expectedDst, dstBit, expectedSrc, srcBit, bits);
        assertEquals(set, ops.orCount(dst, dstBit, src, srcBit, bits), where);
      }
      case "orCountClear" -> {
        set = Model.or(expectedDst, dstBit, expectedSrc, srcBit, bits);
        expectedSrc.clear((int) srcBit, (int) (srcBit + bits));
        assertEquals(set, ops.orCountClear(dst, dstBit, src, srcBit, bits), where);
      }
      default -> {
        Model.andNot(expectedDst, dstBit, expectedSrc, srcBit, bits);
        ops.andNot(dst, dstBit, src, srcBit, bits);
      }
    }
    assertEquals(expectedDst, Model.of(dst), where);
    assertEquals(expectedSrc, Model.of(src), where);
  }

  @ParameterizedTest
  @ValueSource(strings = {"or", "orCount", "orCountClear", "andNot"})
  void pairOperationsFindLoneBitsBehindCleanStretches(String name) {
    // Kernels may take another way where an arena could close the memory meanwhile.
    long most = 128 << 10;
    try (Mapping pages = Mapping.anonymous(2 * most);
        Arena arena = Arena.ofConfined()) {
      for (int i = 0; i < 700; i++) {
        long words = random.nextLong(1, random.nextBoolean() ? 7000 : most / 8);
        SegmentAllocator memory =
            random.nextBoolean()
                ? arena
                : SegmentAllocator.slicingAllocator(pages.segment().fill((byte) 0));
        MemorySegment dst = memory.allocate(words * 8, 8);
        MemorySegment src = memory.allocate(words * 8, 8);
        if (random.nextBoolean()) {
          fill(dst, density());
        }
        for (int lone = random.nextInt(10); lone > 0; lone--) {
          Bitmaps.scalar().set(src, random.nextLong(words * 64), 1);
        }
        long shift = random.nextBoolean() ? 0 : random.nextLong(64);
        boolean left = random.nextBoolean();
        comparePair(name, dst, left ? shift : 0, src, left ? 0 : shift, words * 64 - shift);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"or", "orCount", "andNot"})
  void pairOperationsTakeTheSameRangeTwice(String name) {
    for (int i = 0; i < 500; i++) {
      MemorySegment map = place(dstPage, WORDS);
      BitSet expected = fill(map, density());
      long bit = random.nextLong(BITS);
      long bits = random.nextLong(BITS - bit + 1);
      switch (name) {
        case "or" -> ops.or(map, bit, map, bit, bits);
        case "orCount" -> assertEquals(0, ops.orCount(map, bit, map, bit, bits));
        default -> {
          ops.andNot(map, bit, map, bit, bits);
          expected.clear((int) bit, (int) (bit + bits));
        }
      }
      assertEquals(expected, Model.of(map), bits + " bits at " + bit);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"cardinality", "any", "set", "clear", "nextSet", "nextClear"})
  void singleOperationsEqualTheModelAtEveryOffset(String name) {
    everyOffset(
        (bit, ignored, bits) -> {
          MemorySegment map = place(dstPage, WORDS);
          BitSet expected = fill(map, density());
          int from = (int) bit;
          int end = (int) (bit + bits);
          switch (name) {
            case "cardinality" ->
                assertEquals(
                    expected.get(from, end).cardinality(), ops.cardinality(map, bit, bits));
            case "any" -> assertEquals(!expected.get(from, end).isEmpty(), ops.any(map, bit, bits));
            case "set" -> {
              expected.set(from, end);
              ops.set(map, bit, bits);
            }
            case "clear" -> {
              expected.clear(from, end);
              ops.clear(map, bit, bits);
            }
            case "nextSet" ->
                assertEquals(Model.nextSet(expected, from, end), ops.nextSet(map, from, end));
            default ->
                assertEquals(Model.nextClear(expected, from, end), ops.nextClear(map, from, end));
          }
          assertEquals(expected, Model.of(map), bits + " bits at " + bit);
        });
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 3})
  void countsTheNewBitsOfMoreThanAGuestOf8TiB(int shift) {
    // A kernel that counts is called for 256 MiB at most.
    long bits = (1L << 31) + 3 * 64;
    try (Mapping from = Mapping.guarded((bits >>> 3) + 40);
        Mapping to = Mapping.guarded((bits >>> 3) + 40)) {
      MemorySegment src = from.segment().fill((byte) -1);
      MemorySegment dst = to.segment();
      ops.set(dst, 77, 1000);
      assertEquals(bits - 1000, ops.orCount(dst, 0, src, shift, bits));
      assertEquals(bits, ops.cardinality(dst, 0, bits));
      ops.clear(dst, bits - 100, 64);
      assertEquals(64, ops.orCountClear(dst, 0, src, shift, bits));
      assertEquals(64, ops.cardinality(src, 0, bits + 64));
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void searchFindsALoneBitAnywhere(boolean wanted) {
    MemorySegment map = place(dstPage, WORDS);
    for (long bit = 0; bit < BITS; bit++) {
      map.fill((byte) (wanted ? 0 : -1));
      if (wanted) {
        ops.set(map, bit, 1);
      } else {
        ops.clear(map, bit, 1);
      }
      for (long from : new long[] {0, bit, Math.max(0, bit - 700)}) {
        long found = wanted ? ops.nextSet(map, from, BITS) : ops.nextClear(map, from, BITS);
        assertEquals(bit, found, "from " + from);
        long none = wanted ? ops.nextSet(map, from, bit) : ops.nextClear(map, from, bit);
        assertEquals(bit, none, "before it, from " + from);
      }
      if (bit + 1 < BITS) {
        long after = wanted ? ops.nextSet(map, bit + 1, BITS) : ops.nextClear(map, bit + 1, BITS);
        assertEquals(BITS, after, "after " + bit);
      }
    }
  }

  /** Memory that an arena closes, and memory without one, are read in different ways. */
  private void withBothKinds(long bytes, Consumer<MemorySegment> test) {
    try (Arena arena = Arena.ofConfined();
        Mapping mapping = Mapping.guarded(Pages.roundUp(bytes))) {
      test.accept(arena.allocate(bytes, 64));
      test.accept(mapping.segment().asSlice(Pages.roundUp(bytes) - bytes));
    }
  }

  /** Of memory that an arena closes, and of memory that stays: each has its own kernel. */
  @Test
  void summaryNamesTheLinesThatHaveBits() {
    try (Arena arena = Arena.ofConfined();
        Mapping endless = Mapping.guarded(1 << 16)) {
      for (int i = 0; i < 400; i++) {
        SegmentAllocator memory =
            i % 2 == 0 ? SegmentAllocator.slicingAllocator(endless.segment()) : arena;
        long words = i < 40 ? i : random.nextLong(2000);
        MemorySegment map = memory.allocate((words + 3) * 8, 8).asSlice(0, words * 8);
        MemorySegment other = memory.allocate((words + 3) * 8, 8).asSlice(0, words * 8);
        long summaryWords = (words + 511) / 512;
        MemorySegment lines = memory.allocate(summaryWords * 8 + 8, 8);
        BitSet bits = fill(map, density());
        BitSet others = fill(other, density());
        lines.fill((byte) 0x55);
        assertEquals(bits.cardinality(), ops.summarize(map, words, lines), words + " words");
        assertEquals(0x5555555555555555L, lines.get(WORD, summaryWords * 8), "past the summary");
        for (long line = 0; line < summaryWords * 64; line++) {
          boolean named = (lines.get(WORD, line >>> 6 << 3) >>> line & 1) != 0;
          BitSet inLine = bits.get((int) line * 512, (int) line * 512 + 512);
          assertEquals(!inLine.isEmpty(), named, "line " + line + " of " + words + " words");
        }

        long set = Model.or(others, 0, bits, 0, words * 64);
        assertEquals(set, ops.orLines(other, map, words, lines), words + " words");
        assertEquals(others, Model.of(other), words + " words");

        // Only named lines are touched, even where others have bits.
        others.stream().limit(1).forEach(bit -> ops.set(map, bit, 1));
        BitSet left = Model.of(map);
        for (long line = 0; line < (words + 7) / 8; line++) {
          if ((lines.get(WORD, line >>> 6 << 3) >>> line & 1) != 0) {
            left.clear((int) line * 512, (int) line * 512 + 512);
          }
        }
        ops.clearLines(map, words, lines);
        assertEquals(left, Model.of(map), words + " words");
      }
    }
  }

  @Test
  void wrongArgumentsAreRefused() {
    MemorySegment map = place(dstPage, WORDS);
    MemorySegment src = place(srcPage, WORDS);
    MemorySegment heap = MemorySegment.ofArray(new long[WORDS]);
    long end = BITS;
    assertThrows(IndexOutOfBoundsException.class, () -> ops.set(map, end, 1));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.set(map, -1, 1));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.set(map, 1, -1));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.set(map, 1, Long.MAX_VALUE));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.set(map, Long.MAX_VALUE, 1));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.or(map, 0, src, 1, end));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.or(map, 1, src, 0, end));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.nextSet(map, 2, 1));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.nextClear(map, 0, end + 1));
    assertThrows(IndexOutOfBoundsException.class, () -> ops.summarize(map, WORDS + 1, src));
    assertThrows(
        IndexOutOfBoundsException.class, () -> ops.summarize(map, WORDS, src.asSlice(0, 0)));
    assertThrows(IllegalArgumentException.class, () -> ops.any(heap, 0, 1));
    assertThrows(IllegalArgumentException.class, () -> ops.any(map.asSlice(4), 0, 1));
    // The destination's last word is the source's first.
    assertThrows(IllegalArgumentException.class, () -> ops.or(map, 0, map, 100, 100));
    assertThrows(IllegalArgumentException.class, () -> ops.or(map, 64, map, 0, 65));
    assertThrows(IllegalArgumentException.class, () -> ops.orCountClear(map, 3, map, 3, 9));
    assertThrows(IllegalArgumentException.class, () -> ops.summarize(map, WORDS, map));
    ops.or(map, 64, map, 0, 64);
  }
}
