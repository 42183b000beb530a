package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * The specification of every operation: a word of the destination at a time. It also is what runs
 * where vectors do not pay, and does the edges of the vector twin's ranges.
 */
class ScalarBitmapOps extends CheckedBitmapOps {
  /** The bits of the word that holds {@code bit}, from there up to {@code bits} of them. */
  private static long mask(long bit, long bits) {
    long upTo = bits >= 64 ? -1L : (1L << bits) - 1;
    return upTo << bit;
  }

  /** How many bits of the range lie in its first word. */
  private static long step(long bit, long bits) {
    return Math.min(bits, 64 - (bit & 63));
  }

  private static long word(MemorySegment map, long bit) {
    return map.get(WORD, bit >>> 6 << 3);
  }

  private static void put(MemorySegment map, long bit, long word) {
    map.set(WORD, bit >>> 6 << 3, word);
  }

  /** At most 64 bits from any position, read from no other words than hold them. */
  private static long read(MemorySegment map, long bit, long bits) {
    long low = word(map, bit) >>> bit;
    long inFirst = 64 - (bit & 63);
    long both = bits > inFirst ? low | word(map, bit + inFirst) << inFirst : low;
    return both & mask(0, bits);
  }

  /** Bits before the first whole word. */
  private static long head(long bit, long bits) {
    return Math.min(-bit & 63, bits);
  }

  /**
   * Whole words that can be made of two words of the source each, whatever the shift: there is at
   * least one bit behind them.
   */
  private static long whole(long bits) {
    return Math.max(0, bits - 1) >>> 6;
  }

  /** 64 bits that begin {@code shift} bits into the lower word. */
  private static long join(long low, long high, long shift) {
    return low >>> shift | high << 1 << 63 - shift;
  }

  @Override
  void doOr(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    orRange(dst, dstBit, src, srcBit, bits);
  }

  static void orRange(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long head = head(dstBit, bits);
    orEdge(dst, dstBit, src, srcBit, head);
    long shift = srcBit + head & 63;
    long d = dstBit + head >>> 6 << 3;
    long s = srcBit + head >>> 6 << 3;
    long bytes = whole(bits - head) << 3;
    if (bytes > 0) {
      long low = src.get(WORD, s);
      for (long i = 0; i < bytes; i += 8) {
        long high = src.get(WORD, s + i + 8);
        dst.set(WORD, d + i, dst.get(WORD, d + i) | join(low, high, shift));
        low = high;
      }
    }
    long done = head + (bytes << 3);
    orEdge(dst, dstBit + done, src, srcBit + done, bits - done);
  }

  /** At most one word of the destination. */
  private static void orEdge(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (bits > 0) {
      put(dst, dstBit, word(dst, dstBit) | read(src, srcBit, bits) << dstBit);
    }
  }

  @Override
  long doOrCount(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    return orCountRange(dst, dstBit, src, srcBit, bits);
  }

  static long orCountRange(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long head = head(dstBit, bits);
    long count = orCountEdge(dst, dstBit, src, srcBit, head);
    long shift = srcBit + head & 63;
    long d = dstBit + head >>> 6 << 3;
    long s = srcBit + head >>> 6 << 3;
    long bytes = whole(bits - head) << 3;
    if (bytes > 0) {
      long low = src.get(WORD, s);
      for (long i = 0; i < bytes; i += 8) {
        long high = src.get(WORD, s + i + 8);
        long in = join(low, high, shift);
        long old = dst.get(WORD, d + i);
        dst.set(WORD, d + i, old | in);
        count += Long.bitCount(in & ~old);
        low = high;
      }
    }
    long done = head + (bytes << 3);
    return count + orCountEdge(dst, dstBit + done, src, srcBit + done, bits - done);
  }

  private static long orCountEdge(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (bits == 0) {
      return 0;
    }
    long in = read(src, srcBit, bits) << dstBit;
    long old = word(dst, dstBit);
    put(dst, dstBit, old | in);
    return Long.bitCount(in & ~old);
  }

  @Override
  long doOrCountClear(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    return orCountClearRange(dst, dstBit, src, srcBit, bits);
  }

  static long orCountClearRange(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long count = orCountRange(dst, dstBit, src, srcBit, bits);
    clearRange(src, srcBit, bits);
    return count;
  }

  @Override
  void doAndNot(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    andNotRange(dst, dstBit, src, srcBit, bits);
  }

  static void andNotRange(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    for (long done = 0, n; done < bits; done += n) {
      long bit = dstBit + done;
      n = step(bit, bits - done);
      put(dst, bit, word(dst, bit) & ~(read(src, srcBit + done, n) << bit));
    }
  }

  @Override
  long doCardinality(MemorySegment map, long bit, long bits) {
    return cardinalityRange(map, bit, bits);
  }

  static long cardinalityRange(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long tail = bits - head & 63;
    long end = bit + bits - tail >>> 6 << 3;
    long count = cardinalityEdge(map, bit, head) + cardinalityEdge(map, bit + bits - tail, tail);
    for (long i = bit + head >>> 6 << 3; i < end; i += 8) {
      count += Long.bitCount(map.get(WORD, i));
    }
    return count;
  }

  private static long cardinalityEdge(MemorySegment map, long bit, long bits) {
    return bits == 0 ? 0 : Long.bitCount(word(map, bit) & mask(bit, bits));
  }

  @Override
  boolean doAny(MemorySegment map, long bit, long bits) {
    return anyRange(map, bit, bits);
  }

  static boolean anyRange(MemorySegment map, long bit, long bits) {
    return nextSetRange(map, bit, bit + bits) < bit + bits;
  }

  @Override
  void doSet(MemorySegment map, long bit, long bits) {
    setRange(map, bit, bits);
  }

  static void setRange(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long tail = bits - head & 63;
    long end = bit + bits - tail >>> 6 << 3;
    setEdge(map, bit, head);
    for (long i = bit + head >>> 6 << 3; i < end; i += 8) {
      map.set(WORD, i, -1);
    }
    setEdge(map, bit + bits - tail, tail);
  }

  private static void setEdge(MemorySegment map, long bit, long bits) {
    if (bits > 0) {
      put(map, bit, word(map, bit) | mask(bit, bits));
    }
  }

  @Override
  void doClear(MemorySegment map, long bit, long bits) {
    clearRange(map, bit, bits);
  }

  static void clearRange(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long tail = bits - head & 63;
    long end = bit + bits - tail >>> 6 << 3;
    clearEdge(map, bit, head);
    for (long i = bit + head >>> 6 << 3; i < end; i += 8) {
      map.set(WORD, i, 0);
    }
    clearEdge(map, bit + bits - tail, tail);
  }

  private static void clearEdge(MemorySegment map, long bit, long bits) {
    if (bits > 0) {
      put(map, bit, word(map, bit) & ~mask(bit, bits));
    }
  }

  @Override
  long doNextSet(MemorySegment map, long from, long end) {
    return nextSetRange(map, from, end);
  }

  static long nextSetRange(MemorySegment map, long from, long end) {
    for (long bit = from; bit < end; bit = (bit | 63) + 1) {
      long rest = word(map, bit) >>> bit;
      if (rest != 0) {
        return Math.min(bit + Long.numberOfTrailingZeros(rest), end);
      }
    }
    return end;
  }

  @Override
  long doNextClear(MemorySegment map, long from, long end) {
    return nextClearRange(map, from, end);
  }

  static long nextClearRange(MemorySegment map, long from, long end) {
    for (long bit = from; bit < end; bit = (bit | 63) + 1) {
      long rest = ~word(map, bit) >>> bit;
      if (rest != 0) {
        return Math.min(bit + Long.numberOfTrailingZeros(rest), end);
      }
    }
    return end;
  }

  @Override
  long doSummarize(MemorySegment map, long words, MemorySegment lines) {
    return summarizeFrom(map, 0, words, lines);
  }

  /** Summarizes from a word on whose line is the first of a word of the summary. */
  static long summarizeFrom(MemorySegment map, long from, long words, MemorySegment lines) {
    assert from % 512 == 0;
    long count = 0;
    for (long first = from; first < words; first += 512) {
      long end = Math.min(first + 512, words);
      long summary = 0;
      for (long word = first; word < end; word++) {
        long bits = map.get(WORD, word << 3);
        count += Long.bitCount(bits);
        summary |= (bits | -bits) >>> 63 << (word >>> 3);
      }
      lines.set(WORD, first >>> 9 << 3, summary);
    }
    return count;
  }

  @Override
  void doClearLines(MemorySegment map, long words, MemorySegment lines) {
    long end = words + 7 >>> 3;
    for (long line = 0; (line = nextSetRange(lines, line, end)) < end; line++) {
      clearRange(map, line << 9, lineBits(line, words));
    }
  }

  @Override
  long doOrLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines) {
    long count = 0;
    long end = words + 7 >>> 3;
    for (long line = 0; (line = nextSetRange(lines, line, end)) < end; line++) {
      count += orCountRange(dst, line << 9, src, line << 9, lineBits(line, words));
    }
    return count;
  }

  private static long lineBits(long line, long words) {
    return Math.min(8, words - (line << 3)) << 6;
  }

  @Override
  int listRuns(RunScan scan, long end, int before) {
    MemorySegment map = scan.map;
    int n = before;
    long[] edges = scan.edges;
    int[] ends = scan.ends;
    long line = scan.line;
    while (line < end && n < RunScan.ENOUGH) {
      // An open run ends in the next line, if only at its first bit.
      long left = scan.namedFrom(line, end) | n & 1;
      if (left == 0) {
        line = Math.min((line | 63) + 1, end);
        continue;
      }
      line += Long.numberOfTrailingZeros(left);
      int place = (int) ((line << 9) - scan.base);
      int set = 0;
      long low = n & 1;
      for (int word = 0; word < 8; word++) {
        long bits = map.get(WORD, (line << 6) + (word << 3));
        long edge = bits ^ (bits << 1 | low);
        edges[word] = edge;
        set |= (int) ((edge | -edge) >>> 63) << word;
        low = bits >>> 63;
      }
      for (; set != 0; set &= set - 1) {
        int word = Integer.numberOfTrailingZeros(set) & 7;
        int count = Long.bitCount(edges[word]);
        listBits(edges[word], count, place + (word << 6), ends, n);
        n += count;
      }
      line++;
    }
    scan.line = line;
    return n;
  }

  /**
   * Lists the set bits of a word, without a branch for each, as a wrongly guessed one costs more
   * than ten of them. Up to 8 places behind the last are overwritten.
   */
  static void listBits(long word, int count, int place, int[] places, int at) {
    long left = word;
    places[at] = place + Long.numberOfTrailingZeros(left);
    left &= left - 1;
    places[at + 1] = place + Long.numberOfTrailingZeros(left);
    left &= left - 1;
    places[at + 2] = place + Long.numberOfTrailingZeros(left);
    left &= left - 1;
    places[at + 3] = place + Long.numberOfTrailingZeros(left);
    for (int n = 4; n < count; n += 8) {
      for (int k = 0; k < 8; k++) {
        left &= left - 1;
        places[at + n + k] = place + Long.numberOfTrailingZeros(left);
      }
    }
  }
}
