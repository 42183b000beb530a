package dev.tidemark.engine.log;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.ffm.ClosedException;
import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * The collecting plane of a log, held exclusively between {@link RamBlockLog#fill()} and {@link
 * #close()}: while a thread holds it nobody else writes or flips it, so a kernel's plain OR is
 * safe.
 *
 * <p>Positions are pages of the block. Bit n of the plane is page n.
 *
 * <p>Threading: the thread that called {@code fill()}; for any other, and after close, what reads
 * or writes the plane throws {@link ClosedException}. One object per log, never allocated anew.
 */
public final class FillPlane implements AutoCloseable {
  /**
   * Bytes behind {@link #segment()} that are ours too and that nobody reads, before the guard page:
   * for a device that reports the whole of a 2 MiB page of which it was asked for a part.
   */
  public static final long SLACK_BYTES = 64;

  private final RamBlockLog log;
  private final BitmapOps ops;
  private final long pages;

  /** The log's current fill plane; set at each flip, under the log's lock. */
  MemorySegment map;

  /**
   * Whose the plane is, null if nobody's or the log is closed: a thread only ever finds itself here
   * while it holds the log's lock. Not volatile, for {@link #set}, which is called per page.
   */
  Thread holder;

  /** Whether every page is known to be dirty, until the next flip: bits are only ever added. */
  boolean full;

  long mergedWords;
  long markWords;
  long queries;

  FillPlane(RamBlockLog log, BitmapOps ops, long pages) {
    this.log = log;
    this.ops = ops;
    this.pages = pages;
  }

  /** What writes here must hold the plane: closing the log waits for that, and for nothing else. */
  private void checkHeld() {
    if (holder != Thread.currentThread()) {
      throw new ClosedException("fill plane of block " + log.block().name());
    }
  }

  private void check(long page, long count) {
    checkHeld();
    if (page < 0 || count < 0 || page > pages - count) {
      throw new IndexOutOfBoundsException(
          String.format(
              Locale.ROOT,
              "pages %d+%d of block %s, which has %d",
              page,
              count,
              log.block().name(),
              pages));
    }
  }

  /**
   * The plane itself, for a kernel that ORs. It is ours, touched in advance, starts at a multiple
   * of 64 bytes and has {@link #SLACK_BYTES} behind it, then a guard page.
   *
   * @return little-endian 64-bit words, padded to 64 bytes; not to be used once this is closed,
   *     which nothing checks
   */
  public MemorySegment segment() {
    checkHeld();
    return map;
  }

  /**
   * Merges what a kernel wrote by overwriting.
   *
   * @param source its bitmap; not changed
   * @param sourceBit the bit that stands for the first page
   * @param page first page
   * @param count how many pages
   * @return how many pages were not dirty in the plane before
   */
  public long merge(MemorySegment source, long sourceBit, long page, long count) {
    check(page, count);
    mergedWords += (count + 63) >>> 6;
    return ops.orCount(map, page, source, sourceBit, count);
  }

  /** As {@link #merge}, and clears the source's bits for the next answer. */
  public long mergeAndClear(MemorySegment source, long sourceBit, long page, long count) {
    check(page, count);
    mergedWords += (count + 63) >>> 6;
    return ops.orCountClear(map, page, source, sourceBit, count);
  }

  /**
   * Makes pages dirty.
   *
   * @param page first page
   * @param count how many
   */
  public void set(long page, long count) {
    check(page, count);
    ops.set(map, page, count);
    full |= count == pages;
  }

  /** Notes a call to the kernel made for this log. */
  public void countQuery() {
    queries++;
  }

  /** Notes several of them. */
  public void countQueries(long calls) {
    queries += calls;
  }

  /** Notes words of a source's own bitmap that were read other than by a merge. */
  public void countWords(long words) {
    mergedWords += words;
  }

  /** Brings all marks made so far into the plane. */
  void takeMarks() {
    markWords += log.marks().take(map);
  }

  /** Lets the plane go. */
  @Override
  public void close() {
    log.unlock();
  }
}
