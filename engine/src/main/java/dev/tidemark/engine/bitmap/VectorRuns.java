package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.Vectors.BYTES;
import static dev.tidemark.engine.bitmap.Vectors.LE;
import static dev.tidemark.engine.bitmap.Vectors.LINE;
import static dev.tidemark.engine.bitmap.Vectors.SPECIES;
import static dev.tidemark.engine.bitmap.Vectors.guard;
import static jdk.incubator.vector.LongVector.fromMemorySegment;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LT;
import static jdk.incubator.vector.VectorOperators.NE;
import static jdk.incubator.vector.VectorOperators.XOR;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_B2I;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorSpecies;

/** Lists runs, for {@link RunCursor}. */
final class VectorRuns {
  /** Bitmaps of more bytes than this are out of cache. */
  private static final long FAR = 1 << 20;

  /** From more named lines than this, of 64, all are read. */
  private static final int MANY = 8;

  private static final VectorSpecies<Integer> PLACE = IntVector.SPECIES_512;
  private static final int PLACES = PLACE.length();
  private static final VectorSpecies<Byte> BIT = ByteVector.SPECIES_512;
  private static final ByteVector BITS_UP = ByteVector.zero(BIT).addIndex(1);

  /** Where the words of a line begin, in bits. */
  private static final LongVector WORD_PLACES = LongVector.zero(SPECIES).addIndex(64);

  private VectorRuns() {}

  /**
   * As {@link CheckedBitmapOps#listRuns} has it.
   *
   * @param byBytes whether the processor has an instruction for {@link ByteVector#compress} at the
   *     width of a line (AVX512_VBMI2)
   */
  static int list(
      boolean byBytes,
      MemorySegment map,
      MemorySegment lines,
      long base,
      long end,
      int[] ends,
      int n,
      long[] edges,
      int[] named) {
    return BYTES == LINE
        ? listRunsOfLines(byBytes, map, lines, base, end, ends, n, edges, named)
        : listRunsOfParts(map, lines, base, end, ends, n, edges);
  }

  /**
   * Where a vector is a line. First which lines to look at, then the words of many of them in which
   * a run starts or stops, then the places in each of those; none of it with a branch on the data.
   */
  private static int listRunsOfLines(
      boolean byBytes,
      MemorySegment map,
      MemorySegment lines,
      long base,
      long end,
      int[] ends,
      int before,
      long[] edges,
      int[] named) {
    int n = before;
    boolean far = map.byteSize() > FAR && lines != null;
    while (edges[RunCursor.LINE] < end && n < RunCursor.ENOUGH) {
      if (edges[RunCursor.WORD] < edges[RunCursor.FOUND]) {
        int from = (int) edges[RunCursor.WORD];
        int to = (int) Math.min(from + RunCursor.LISTING, edges[RunCursor.FOUND]);
        n = listWords(byBytes, edges, from, to, base, ends, n);
        goOn(edges, to);
      } else if (edges[RunCursor.NEXT] < edges[RunCursor.COUNT]) {
        edges[RunCursor.FOUND] = collectWords(map, named, n & 1, edges);
        goOn(edges, 0);
      } else if (edges[RunCursor.UNNAMED] < end) {
        int words = collectLines(lines, end, edges);
        if (far && words != 0) {
          readAhead(map, end, words, edges);
        }
        edges[RunCursor.NEXT] = 0;
        edges[RunCursor.COUNT] = listWords(byBytes, edges, 0, words, 0, named, 0);
      } else {
        if ((n & 1) != 0) {
          ends[n++] = (int) ((edges[RunCursor.LINE] << 9) - base);
        }
        edges[RunCursor.LINE] = end;
      }
    }
    return n;
  }

  private static void goOn(long[] edges, int word) {
    edges[RunCursor.WORD] = word;
    edges[RunCursor.LINE] =
        word < edges[RunCursor.FOUND]
            ? edges[RunCursor.PLACES + word] >>> 9
            : edges[RunCursor.BEHIND];
  }

  /** Collects words of the summary that name lines, and the lines that they begin with. */
  private static int collectLines(MemorySegment lines, long end, long[] edges) {
    long line = edges[RunCursor.UNNAMED];
    int words = 0;
    while (line < end && words < RunCursor.NAMING) {
      if (lines != null && (line & 511) == 0 && end - line >= 512) {
        LongVector eight = fromMemorySegment(SPECIES, lines, line >>> 3, LE);
        VectorMask<Long> set = eight.compare(NE, 0);
        long some = set.toLong();
        if (some != 0) {
          LongVector places = WORD_PLACES.add(line).compress(set);
          eight.compress(set).intoArray(edges, RunCursor.EDGES + words);
          places.intoArray(edges, RunCursor.PLACES + words);
          words += Long.bitCount(some);
        }
        line += 512;
      } else {
        long left = RunCursor.named(lines, line, end);
        edges[RunCursor.EDGES + words] = left;
        edges[RunCursor.PLACES + words] = line;
        words += left == 0 ? 0 : 1;
        line = Math.min((line | 63) + 1, end);
      }
    }
    edges[RunCursor.UNNAMED] = line;
    return words;
  }

  /**
   * Reads the lines that come next, out of memory, before they are looked at. A load that misses
   * the cache there holds up what follows; here all of them are under way at the same time.
   */
  private static void readAhead(MemorySegment map, long end, int words, long[] edges) {
    guard(map);
    LongVector all = LongVector.zero(SPECIES);
    long some = 0;
    for (int i = 0; i < words; i++) {
      long left = edges[RunCursor.EDGES + i];
      long first = edges[RunCursor.PLACES + i];
      if (Long.bitCount(left) > MANY) {
        // In order, as the prefetcher likes it.
        long behind = Math.min(first + 64, end) << 6;
        for (long at = first << 6; at < behind; at += LINE) {
          all = all.or(fromMemorySegment(SPECIES, map, at, LE));
        }
      } else {
        for (; left != 0; left &= left - 1) {
          some |= map.get(CheckedBitmapOps.WORD, first + Long.numberOfTrailingZeros(left) << 6);
        }
      }
    }
    // Somewhere, or else the compiler would leave the loads out.
    edges[RunCursor.READ] = some | all.lane(0);
  }

  /**
   * Collects words with edges, and where they are, from line to line.
   *
   * @param open 1 if a run is open, 0 if not
   */
  private static int collectWords(MemorySegment map, int[] named, long open, long[] edges) {
    guard(map);
    long low = open;
    long next = edges[RunCursor.BEHIND];
    int i = (int) edges[RunCursor.NEXT];
    int end = (int) Math.min(edges[RunCursor.COUNT], i + RunCursor.LINES);
    int words = 0;
    while (i < end) {
      long changed = -1;
      for (; i < end && changed != 0; i++) {
        long line = named[i];
        if ((next - line & -low) != 0) {
          // The run ended with the line before, as the one behind it is not named.
          edges[RunCursor.EDGES + words] = 1;
          edges[RunCursor.PLACES + words] = next << 9;
          words++;
          low = 0;
        }
        LongVector bits = fromMemorySegment(SPECIES, map, line << 6, LE);
        long tops = bits.compare(LT, 0).toLong();
        LongVector edge = bits.lanewise(XOR, bits.lanewise(LSHL, 1));
        edge = edge.lanewise(XOR, 1, VectorMask.fromLong(SPECIES, tops << 1 | low));
        low = tops >>> 7;
        next = line + 1;
        VectorMask<Long> set = edge.compare(NE, 0);
        changed = set.toLong();
        LongVector places = WORD_PLACES.add(line << 9).compress(set);
        edge.compress(set).intoArray(edges, RunCursor.EDGES + words);
        places.intoArray(edges, RunCursor.PLACES + words);
        words += Long.bitCount(changed);
      }
      if (changed == 0) {
        // Inside of a long run, which may go on for many whole lines.
        int inside = skipFull(map, named, i, end, next);
        next += inside - i;
        i = inside;
      }
    }
    edges[RunCursor.BEHIND] = next;
    edges[RunCursor.NEXT] = i;
    return words;
  }

  /** Where in the list, from {@code at} on, the lines that follow each other are no longer full. */
  private static int skipFull(MemorySegment map, int[] named, int at, int end, long line) {
    guard(map);
    int i = at;
    long next = line;
    while (i + 4 <= end && named[i + 3] == next + 3) {
      LongVector low =
          fromMemorySegment(SPECIES, map, next << 6, LE)
              .and(fromMemorySegment(SPECIES, map, (next << 6) + LINE, LE));
      LongVector high =
          fromMemorySegment(SPECIES, map, (next << 6) + 2 * LINE, LE)
              .and(fromMemorySegment(SPECIES, map, (next << 6) + 3 * LINE, LE));
      if (low.and(high).compare(NE, -1).anyTrue()) {
        break;
      }
      i += 4;
      next += 4;
    }
    return i;
  }

  private static int listWords(
      boolean byBytes, long[] edges, int from, int to, long base, int[] ends, int n) {
    return byBytes
        ? listWords(edges, from, to, base, ends, n)
        : listWordsByBits(edges, from, to, base, ends, n);
  }

  /**
   * Lists the places of the edges in words that were collected, all of a word's at once. Three
   * words a round: so much C2 does not inline where registers are short.
   */
  private static int listWords(long[] edges, int from, int to, long base, int[] ends, int before) {
    int n = before;
    int i = from;
    for (; i <= to - 3; i += 3) {
      long a = edges[RunCursor.EDGES + i];
      long b = edges[RunCursor.EDGES + i + 1];
      long c = edges[RunCursor.EDGES + i + 2];
      int first = (int) (edges[RunCursor.PLACES + i] - base);
      int second = (int) (edges[RunCursor.PLACES + i + 1] - base);
      int third = (int) (edges[RunCursor.PLACES + i + 2] - base);
      int behindA = n + Long.bitCount(a);
      int behindB = behindA + Long.bitCount(b);
      int behindC = behindB + Long.bitCount(c);
      ByteVector in = BITS_UP.compress(VectorMask.fromLong(BIT, a));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(first).intoArray(ends, n);
      if (behindA - n > PLACES) {
        listRest(a, first, ends, n);
      }
      in = BITS_UP.compress(VectorMask.fromLong(BIT, b));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(second).intoArray(ends, behindA);
      if (behindB - behindA > PLACES) {
        listRest(b, second, ends, behindA);
      }
      in = BITS_UP.compress(VectorMask.fromLong(BIT, c));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(third).intoArray(ends, behindB);
      if (behindC - behindB > PLACES) {
        listRest(c, third, ends, behindB);
      }
      n = behindC;
    }
    for (; i < to; i++) {
      long bits = edges[RunCursor.EDGES + i];
      int first = (int) (edges[RunCursor.PLACES + i] - base);
      ByteVector in = BITS_UP.compress(VectorMask.fromLong(BIT, bits));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(first).intoArray(ends, n);
      if (Long.bitCount(bits) > PLACES) {
        listRest(bits, first, ends, n);
      }
      n += Long.bitCount(bits);
    }
    return n;
  }

  /** The places of a word behind the first ones; apart, as few words have so many. */
  private static void listRest(long bits, int first, int[] ends, int n) {
    ByteVector in = BITS_UP.compress(VectorMask.fromLong(BIT, bits));
    ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 1)).add(first).intoArray(ends, n + PLACES);
    ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 2))
        .add(first)
        .intoArray(ends, n + 2 * PLACES);
    ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 3))
        .add(first)
        .intoArray(ends, n + 3 * PLACES);
  }

  /** The same where a processor with AVX-512 has no compression of bytes. */
  private static int listWordsByBits(
      long[] edges, int from, int to, long base, int[] ends, int before) {
    int n = before;
    for (int i = from; i < to; i++) {
      long bits = edges[RunCursor.EDGES + i];
      int count = Long.bitCount(bits);
      ScalarBitmapOps.listBits(bits, count, (int) (edges[RunCursor.PLACES + i] - base), ends, n);
      n += count;
    }
    return n;
  }

  private static int listRunsOfParts(
      MemorySegment map,
      MemorySegment lines,
      long base,
      long end,
      int[] ends,
      int before,
      long[] edges) {
    guard(map);
    int n = before;
    long line = edges[RunCursor.LINE];
    while (line < end && n < RunCursor.ENOUGH) {
      long left = RunCursor.named(lines, line, end) | n & 1;
      if (left == 0) {
        line = Math.min((line | 63) + 1, end);
        continue;
      }
      line += Long.numberOfTrailingZeros(left);
      int place = (int) ((line << 9) - base);
      long set = 0;
      long low = n & 1;
      for (int at = 0; at < LINE; at += BYTES) {
        LongVector bits = fromMemorySegment(SPECIES, map, (line << 6) + at, LE);
        long tops = bits.compare(LT, 0).toLong();
        LongVector edge = bits.lanewise(XOR, bits.lanewise(LSHL, 1));
        edge = edge.lanewise(XOR, 1, VectorMask.fromLong(SPECIES, tops << 1 | low));
        low = tops >>> SPECIES.length() - 1;
        edge.intoArray(edges, RunCursor.EDGES + (at >> 3));
        set |= edge.compare(NE, 0).toLong() << (at >> 3);
      }
      for (; set != 0; set &= set - 1) {
        int word = Long.numberOfTrailingZeros(set) & 7;
        long bits = edges[RunCursor.EDGES + word];
        int count = Long.bitCount(bits);
        ScalarBitmapOps.listBits(bits, count, place + (word << 6), ends, n);
        n += count;
      }
      line++;
    }
    edges[RunCursor.LINE] = line;
    return n;
  }
}
