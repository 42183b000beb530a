package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * What a dirty log does with bitmaps: bit n is page n, in 64-bit little-endian words, as the kernel
 * writes them. {@link Bitmaps#ops()} has the implementation that was chosen for this machine.
 *
 * <p>A bitmap is native memory that starts at a multiple of 8 bytes; it is quickest at a multiple
 * of 64. Positions and lengths are in bits unless they say otherwise, and may be any number on both
 * sides. No operation reads or writes a byte outside the words that hold its range, and bits
 * outside the range stay as they are. Where there are two bitmaps, the ranges are the same range,
 * or share no word.
 *
 * <p>Each operation checks its arguments and throws {@link IndexOutOfBoundsException} for a range
 * that the memory does not hold, and {@link IllegalArgumentException} for memory on the heap, at an
 * odd address or overlapping.
 *
 * <p>Threading: stateless. The writes are plain and not atomic: a bit that another thread, or the
 * kernel, sets in the same word at the same time may be lost. So one writer at a time.
 *
 * <p>Cost: one pass over the range, at memory speed where vectors run, in about 2 ns a word where
 * the scalar twin does: until vectors are proven ({@link Bitmaps}), and of memory that an arena may
 * close. Nothing is allocated, but for the moments after which a vector kernel is found to be
 * deoptimized and taken back.
 */
public interface BitmapOps {
  /** {@code dst |= src}. */
  void or(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  /**
   * {@code dst |= src}.
   *
   * @return how many bits this set in dst
   */
  long orCount(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  /**
   * {@code dst |= src; src = 0}, for a scratch bitmap that is to be clean again. The ranges must
   * not be the same.
   *
   * @return how many bits this set in dst
   */
  long orCountClear(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  /** {@code dst &= ~src}. */
  void andNot(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  /** How many bits of the range are set. */
  long cardinality(MemorySegment map, long bit, long bits);

  /** Whether a bit of the range is set. Stops at the first. */
  boolean any(MemorySegment map, long bit, long bits);

  /** Sets every bit of the range. */
  void set(MemorySegment map, long bit, long bits);

  /** Clears every bit of the range. */
  void clear(MemorySegment map, long bit, long bits);

  /**
   * The first set bit at or after {@code from}.
   *
   * @return less than {@code end}; or {@code end} if there is none
   */
  long nextSet(MemorySegment map, long from, long end);

  /**
   * The first clear bit at or after {@code from}.
   *
   * @return less than {@code end}; or {@code end} if there is none
   */
  long nextClear(MemorySegment map, long from, long end);

  /**
   * Counts a plane's bits and writes its summary, in one scan: bit n of {@code lines} says that
   * line n, the words 8n to 8n+7, has a bit set. Memory that an arena may close meanwhile is
   * scanned by a slower loop than all other, such as mappings.
   *
   * @param words length of the plane in 64-bit words, 0 or more
   * @param lines one bit per started line of 8 words; its words are overwritten, with zeros behind
   *     the last line's bit
   * @return how many bits are set
   */
  long summarize(MemorySegment map, long words, MemorySegment lines);

  /**
   * Zero-fills the lines that a summary names.
   *
   * @param words length of the plane in 64-bit words, 0 or more
   * @param lines as {@link #summarize} wrote it
   */
  void clearLines(MemorySegment map, long words, MemorySegment lines);

  /**
   * {@code dst |= src} in the lines that a summary names.
   *
   * @param words length of both planes in 64-bit words, 0 or more
   * @param lines as {@link #summarize} wrote it for {@code src}
   * @return how many bits this set in dst
   */
  long orLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines);
}
