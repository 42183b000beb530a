package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Pages;
import java.util.ConcurrentModificationException;

/**
 * Goes through the longest gap-free runs of IOVA in a {@link DmaMap}, and within each run through
 * the longest pieces that are contiguous in a block too.
 *
 * <p>Runs and pieces begin and end where a mapping does.
 *
 * <p>Threading: the thread that holds the map's lock, from reset to the last call. Cost: two looks
 * at each mapping, one for its run and one for its piece; nothing is allocated.
 */
public final class DmaRuns {
  /** Which mappings make a run. */
  public enum Kind {
    /** All of them. */
    ALL,

    /** Those that devices may write: a read-only one ends a run, as a hole does. */
    WRITABLE,

    /**
     * From a writable one to a writable one, read-only ones between them included: what the kernel
     * can be asked for in one call, as it stops only at holes.
     */
    SPANNING
  }

  private DmaMap map;
  private Kind kind;
  private long changes;
  private long end;

  // The first mapping that no run has covered yet, and the first that no piece of this run has.
  private int runChunk;
  private int runIndex;
  private int pieceChunk;
  private int pieceIndex;
  private long piecesLeft;

  private long first;
  private long pages;
  private long mappings;
  private long pieceFirst;
  private long piecePages;
  private long pieceWritable;
  private long piecePage;
  private RamBlockLog pieceLog;

  /** Makes a cursor without any runs, to be reset. */
  public DmaRuns() {}

  /** Begins with the first run of all mappings. */
  public void reset(DmaMap map, Kind kind) {
    resetPages(map, kind, 0, Long.MAX_VALUE);
  }

  /**
   * Begins with the first run of a range that splits no mapping.
   *
   * @param iova the first address
   * @param bytes how many
   */
  public void reset(DmaMap map, Kind kind, long iova, long bytes) {
    long from = DmaMap.pageOf(iova, bytes);
    resetPages(map, kind, from, from + (bytes >>> Pages.SHIFT));
  }

  void resetPages(DmaMap map, Kind kind, long from, long end) {
    map.checkLocked();
    this.map = map;
    this.kind = kind;
    this.end = end;
    changes = map.changes();
    map.locate(from);
    runChunk = map.foundChunk();
    runIndex = map.foundIndex();
    piecesLeft = 0;
  }

  private void check() {
    if (changes != map.changes()) {
      throw new ConcurrentModificationException("the DMA map changed under a cursor");
    }
  }

  /**
   * Goes on to the next run.
   *
   * @return whether there is one
   */
  public boolean next() {
    check();
    long from = -1;
    long to = 0;
    long seen = 0;
    long kept = 0;
    int c = runChunk;
    int i = runIndex;
    // Where to go on: behind the last mapping of the run, which may be followed by read-only ones.
    long at = -1;
    scan:
    for (; c < map.chunkCount; c++, i = 0) {
      long[] chunk = map.chunks[c];
      int count = map.counts[c];
      for (; i < count; i++) {
        long start = DmaMap.firstPage(chunk, i);
        if (start >= end) {
          break scan;
        }
        boolean wanted = kind == Kind.ALL || DmaMap.isWritable(chunk, i);
        if (from < 0) {
          if (!wanted) {
            continue;
          }
          from = start;
          pieceChunk = c;
          pieceIndex = i;
        } else if (start != at || kind == Kind.WRITABLE && !wanted) {
          break scan;
        }
        at = start + DmaMap.pageCount(chunk, i);
        seen++;
        if (wanted) {
          to = at;
          kept = seen;
        }
      }
    }
    runChunk = c;
    runIndex = i;
    first = from;
    pages = from < 0 ? 0 : to - from;
    mappings = kept;
    piecesLeft = kept;
    return from >= 0;
  }

  /**
   * Goes on to the next piece of the run: mappings that follow each other in IOVA and in one block.
   *
   * @return whether there is one
   */
  public boolean nextPiece() {
    check();
    if (piecesLeft == 0) {
      return false;
    }
    long length = 0;
    long writable = 0;
    while (piecesLeft > 0) {
      long[] chunk = map.chunks[pieceChunk];
      RamBlockLog log = map.logOf(chunk, pieceIndex);
      long page = DmaMap.blockPage(chunk, pieceIndex);
      if (length == 0) {
        pieceFirst = DmaMap.firstPage(chunk, pieceIndex);
        pieceLog = log;
        piecePage = page;
      } else if (log != pieceLog || page != piecePage + length) {
        break;
      }
      long count = DmaMap.pageCount(chunk, pieceIndex);
      length += count;
      writable += DmaMap.isWritable(chunk, pieceIndex) ? count : 0;
      piecesLeft--;
      if (++pieceIndex == map.counts[pieceChunk]) {
        pieceIndex = 0;
        pieceChunk++;
      }
    }
    piecePages = length;
    pieceWritable = writable;
    return true;
  }

  /** The run's first address. */
  public long iova() {
    return first << Pages.SHIFT;
  }

  /** The run's length in bytes. */
  public long bytes() {
    return pages << Pages.SHIFT;
  }

  /** The run's first address, in pages. */
  long iovaPage() {
    return first;
  }

  /** The run's length in pages. */
  public long pages() {
    return pages;
  }

  /** How many mappings the run holds. */
  public long mappings() {
    return mappings;
  }

  /** The piece's first address. */
  public long pieceIova() {
    return pieceFirst << Pages.SHIFT;
  }

  /** The piece's first address, in pages. */
  long pieceIovaPage() {
    return pieceFirst;
  }

  /** The piece's length in pages. */
  public long piecePages() {
    return piecePages;
  }

  /** How many pages of the piece devices may write. */
  public long pieceWritablePages() {
    return pieceWritable;
  }

  /** The log of the piece's block. */
  public RamBlockLog pieceLog() {
    return pieceLog;
  }

  /** Where in the block the piece begins, in pages. */
  public long piecePage() {
    return piecePage;
  }
}
