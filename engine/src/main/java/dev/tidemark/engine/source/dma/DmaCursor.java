package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Pages;
import java.util.ConcurrentModificationException;

/**
 * Goes through the mappings of a {@link DmaMap}, by ascending IOVA, as often as it is reset.
 *
 * <p>Threading: the thread that holds the map's lock, from reset to the last {@link #next()}. Cost:
 * a few loads a mapping; nothing is allocated.
 */
public final class DmaCursor {
  private DmaMap map;
  private long changes;
  private long end;
  private int nextChunk;
  private int nextIndex;

  private long first;
  private long pages;
  private long page;
  private boolean writable;
  private RamBlockLog log;

  /** Makes a cursor without any mappings, to be reset. */
  public DmaCursor() {}

  /** Begins with the first of all mappings. */
  public void reset(DmaMap map) {
    resetPages(map, 0, Long.MAX_VALUE);
  }

  /**
   * Begins with the first mapping of a range, also one that is only partly in it; ends likewise.
   *
   * @param iova the first address
   * @param bytes how many
   */
  public void reset(DmaMap map, long iova, long bytes) {
    long from = DmaMap.pageOf(iova, bytes);
    resetPages(map, from, from + (bytes >>> Pages.SHIFT));
  }

  void resetPages(DmaMap map, long from, long end) {
    map.checkLocked();
    this.map = map;
    this.end = end;
    changes = map.changes();
    map.locate(from);
    nextChunk = map.foundChunk();
    nextIndex = map.foundIndex();
    pages = 0;
    first = from;
  }

  /**
   * Goes on to the next mapping.
   *
   * @return whether there is one
   */
  public boolean next() {
    if (changes != map.changes()) {
      throw new ConcurrentModificationException("the DMA map changed under a cursor");
    }
    if (nextChunk >= map.chunkCount) {
      return false;
    }
    long[] chunk = map.chunks[nextChunk];
    int i = nextIndex;
    long start = DmaMap.firstPage(chunk, i);
    if (start >= end) {
      return false;
    }
    first = start;
    pages = DmaMap.pageCount(chunk, i);
    page = DmaMap.blockPage(chunk, i);
    writable = DmaMap.isWritable(chunk, i);
    log = map.logOf(chunk, i);
    if (++nextIndex == map.counts[nextChunk]) {
      nextIndex = 0;
      nextChunk++;
    }
    return true;
  }

  /**
   * Goes forward to the mapping that holds an IOVA page, or stays there.
   *
   * @return false if there is none that holds it or one behind it
   */
  boolean seek(long iovaPage) {
    if (iovaPage < first + pages) {
      return pages > 0;
    }
    // The next mapping is mostly in this chunk, and often the very next.
    if (nextChunk < map.chunkCount) {
      long[] chunk = map.chunks[nextChunk];
      int count = map.counts[nextChunk];
      if (DmaMap.firstPage(chunk, nextIndex) + DmaMap.pageCount(chunk, nextIndex) <= iovaPage) {
        int i = DmaMap.search(chunk, nextIndex, count, iovaPage);
        if (i < count) {
          nextIndex = i;
        } else {
          map.locate(iovaPage);
          nextChunk = map.foundChunk();
          nextIndex = map.foundIndex();
        }
      }
    }
    return next();
  }

  /** The mapping's first address. */
  public long iova() {
    return first << Pages.SHIFT;
  }

  /** The mapping's length in bytes. */
  public long bytes() {
    return pages << Pages.SHIFT;
  }

  /** The mapping's first address, in pages. */
  long iovaPage() {
    return first;
  }

  /** The mapping's length in pages. */
  public long pages() {
    return pages;
  }

  /** The log of the block that it shows. */
  public RamBlockLog log() {
    return log;
  }

  /** Where in the block it begins, in pages. */
  public long page() {
    return page;
  }

  /** Whether devices may write there. */
  public boolean isWritable() {
    return writable;
  }
}
