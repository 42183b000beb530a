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
  static int list(boolean byBytes, RunScan scan, long end, int n) {
    return BYTES == LINE ? listRunsOfLines(byBytes, scan, end, n) : listRunsOfParts(scan, end, n);
  }

  /**
   * Where a vector is a line. First which lines to look at, then the words of many of them in which
   * a run starts or stops, then the places in each of those; none of it with a branch on the data.
   */
  private static int listRunsOfLines(boolean byBytes, RunScan scan, long end, int before) {
    int n = before;
    boolean far = scan.map.byteSize() > FAR && scan.lines != null;
    while (scan.line < end && n < RunScan.ENOUGH) {
      if (scan.nextEdge < scan.edgeCount) {
        int to = Math.min(scan.nextEdge + RunScan.LISTING, scan.edgeCount);
        n = listWords(byBytes, scan, scan.nextEdge, to, scan.base, n);
        goOn(scan, to);
      } else if (scan.nextNamed < scan.namedEnd) {
        scan.edgeCount = collectWords(scan, n & 1);
        goOn(scan, 0);
      } else if (scan.unnamed < end) {
        int words = collectLines(scan, end);
        if (far) {
          readAhead(scan, words, end);
        }
        scan.nextNamed = RunScan.NAMED;
        scan.namedEnd = listWords(byBytes, scan, 0, words, 0, RunScan.NAMED);
      } else {
        if ((n & 1) != 0) {
          scan.ends[n++] = (int) ((scan.line << 9) - scan.base);
        }
        scan.line = end;
      }
    }
    return n;
  }

  private static void goOn(RunScan scan, int edge) {
    scan.nextEdge = edge;
    scan.line = edge < scan.edgeCount ? scan.edges[edge + RunScan.PLACE] >>> 9 : scan.behind;
  }

  /** Collects words of the summary that name lines, and the lines that they begin with. */
  static int collectLines(RunScan scan, long end) {
    MemorySegment lines = scan.lines;
    long[] edges = scan.edges;
    long line = scan.unnamed;
    int words = 0;
    while (line < end && words < RunScan.NAMING) {
      if (lines != null && (line & 511) == 0 && end - line >= 512) {
        LongVector eight = fromMemorySegment(SPECIES, lines, line >>> 3, LE);
        VectorMask<Long> set = eight.compare(NE, 0);
        long some = set.toLong();
        if (some != 0) {
          LongVector places = WORD_PLACES.add(line).compress(set);
          eight.compress(set).intoArray(edges, words);
          places.intoArray(edges, words + RunScan.PLACE);
          words += Long.bitCount(some);
        }
        line += 512;
      } else {
        long left = scan.namedFrom(line, end);
        edges[words] = left;
        edges[words + RunScan.PLACE] = line;
        words += left == 0 ? 0 : 1;
        line = Math.min((line | 63) + 1, end);
      }
    }
    scan.unnamed = line;
    return words;
  }

  /**
   * Reads the lines that come next, out of memory, before they are looked at. A load that misses
   * the cache there holds up what follows; here all of them are under way at the same time.
   */
  static void readAhead(RunScan scan, int words, long end) {
    if (words == 0) {
      return;
    }
    MemorySegment map = scan.map;
    guard(map);
    long[] edges = scan.edges;
    LongVector all = LongVector.zero(SPECIES);
    long some = 0;
    for (int i = 0; i < words; i++) {
      long left = edges[i];
      long first = edges[i + RunScan.PLACE];
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
    scan.read = some | all.lane(0);
  }

  /**
   * Collects words with edges, and where they are, from line to line.
   *
   * @param open 1 if a run is open, 0 if not
   */
  static int collectWords(RunScan scan, long open) {
    MemorySegment map = scan.map;
    guard(map);
    int[] named = scan.ends;
    long[] edges = scan.edges;
    long low = open;
    long next = scan.behind;
    int i = scan.nextNamed;
    int end = Math.min(scan.namedEnd, i + RunScan.LINES);
    if (i == end) {
      return 0;
    }
    int words = 0;
    while (i < end) {
      long changed = -1;
      for (; i < end && changed != 0; i++) {
        long line = named[i];
        if ((next - line & -low) != 0) {
          // The run ended with the line before, as the one behind it is not named.
          edges[words] = 1;
          edges[words + RunScan.PLACE] = next << 9;
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
        edge.compress(set).intoArray(edges, words);
        places.intoArray(edges, words + RunScan.PLACE);
        words += Long.bitCount(changed);
      }
      if (changed == 0) {
        // Inside of a long run, which may go on for many whole lines; as they have no edges, there
        // is room for all.
        int inside = skipFull(map, named, i, scan.namedEnd, next);
        next += inside - i;
        i = inside;
      }
    }
    scan.behind = next;
    scan.nextNamed = i;
    return words;
  }

  /** Where in the list, from {@code at} on, the lines that follow each other are no longer full. */
  static int skipFull(MemorySegment map, int[] named, int at, int end, long line) {
    guard(map);
    int i = at;
    long next = line;
    while (i + 3 < end && named[i + 3] == next + 3) {
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

  private static int listWords(boolean byBytes, RunScan scan, int from, int to, long base, int n) {
    return byBytes
        ? listWords(scan.edges, from, to, base, scan.ends, n)
        : listWordsByBits(scan.edges, from, to, base, scan.ends, n);
  }

  /**
   * Lists the places of the edges in words that were collected, all of a word's at once. Three
   * words a round: so much C2 does not inline where registers are short. Loops of kernels end with
   * {@code <}: compiled code gives up where one with {@code <=} begins at its limit.
   */
  static int listWords(long[] edges, int from, int to, long base, int[] ends, int before) {
    if (from == to) {
      return before;
    }
    int n = before;
    int i = from;
    for (; i < to - 2; i += 3) {
      long a = edges[i];
      long b = edges[i + 1];
      long c = edges[i + 2];
      int first = (int) (edges[i + RunScan.PLACE] - base);
      int second = (int) (edges[i + 1 + RunScan.PLACE] - base);
      int third = (int) (edges[i + 2 + RunScan.PLACE] - base);
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
      long bits = edges[i];
      int first = (int) (edges[i + RunScan.PLACE] - base);
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
  static void listRest(long bits, int first, int[] ends, int n) {
    if (bits == 0) {
      return;
    }
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
      long bits = edges[i];
      int count = Long.bitCount(bits);
      ScalarBitmapOps.listBits(bits, count, (int) (edges[i + RunScan.PLACE] - base), ends, n);
      n += count;
    }
    return n;
  }

  static int listRunsOfParts(RunScan scan, long end, int before) {
    MemorySegment map = scan.map;
    guard(map);
    int n = before;
    long[] edges = scan.edges;
    int[] ends = scan.ends;
    long line = scan.line;
    while (line < end && n < RunScan.ENOUGH) {
      long left = scan.namedFrom(line, end) | n & 1;
      if (left == 0) {
        line = Math.min((line | 63) + 1, end);
        continue;
      }
      line += Long.numberOfTrailingZeros(left);
      int place = (int) ((line << 9) - scan.base);
      long set = 0;
      long low = n & 1;
      for (int at = 0; at < LINE; at += BYTES) {
        LongVector bits = fromMemorySegment(SPECIES, map, (line << 6) + at, LE);
        long tops = bits.compare(LT, 0).toLong();
        LongVector edge = bits.lanewise(XOR, bits.lanewise(LSHL, 1));
        edge = edge.lanewise(XOR, 1, VectorMask.fromLong(SPECIES, tops << 1 | low));
        low = tops >>> SPECIES.length() - 1;
        edge.intoArray(edges, at >> 3);
        set |= edge.compare(NE, 0).toLong() << (at >> 3);
      }
      for (; set != 0; set &= set - 1) {
        int word = Long.numberOfTrailingZeros(set) & 7;
        long bits = edges[word];
        int count = Long.bitCount(bits);
        ScalarBitmapOps.listBits(bits, count, place + (word << 6), ends, n);
        n += count;
      }
      line++;
    }
    scan.line = line;
    return n;
  }
}
