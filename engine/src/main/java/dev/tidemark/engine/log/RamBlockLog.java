package dev.tidemark.engine.log;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.internal.Unwind;
import java.lang.foreign.MemorySegment;
import java.util.Locale;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Which pages of a RAM block are dirty and not yet sent.
 *
 * <p>Two planes change roles at each {@link #harvest()}: the fill plane collects, the send plane
 * holds the open {@link Epoch}. Writers that cannot wait go to a third one by {@link #mark}.
 *
 * <p>Footprint: 3 bits a page and 1/64 of a bit for summaries, off-heap; 1 TiB of guest memory
 * costs 96 MiB. Cost: a harvest scans one plane; everything else is proportional to what is dirty.
 *
 * <p>Threading: {@link #mark} from any thread, without a lock. Everything else is ordered by one
 * lock; a flip waits until the {@link FillPlane} is let go. Harvest, commit and abort belong to the
 * one thread that sends. {@link #close()} from any thread, at any time.
 */
public final class RamBlockLog implements AutoCloseable {
  private final RamBlock block;
  private final BitmapOps ops = Bitmaps.ops();
  private final ReentrantLock lock = new ReentrantLock();

  /**
   * Held while somebody reads the send plane: not {@link #lock}, as a reader must not wait for a
   * sync. Taken after that, never the other way round.
   */
  private final ReentrantLock reading = new ReentrantLock();

  private final long pages;
  private final long planeWords;
  private final Mapping planeA;
  private final Mapping planeB;
  private final Mapping lineMapping;
  private final MarksPlane marks;
  private final MemorySegment lines;
  private final FillPlane fill;
  private final Epoch epoch = new Epoch(this);
  private final RunCursor.Lease lease =
      new RunCursor.Lease() {
        @Override
        public void begin() {
          reading.lock();
          try {
            epoch.checkIterating();
          } catch (RuntimeException e) {
            reading.unlock();
            throw e;
          }
        }

        @Override
        public void end() {
          reading.unlock();
        }
      };
  private MemorySegment send;

  /** Whether every page is in the epoch. */
  private boolean sendFull;

  private volatile boolean closed;
  private long harvests;

  /**
   * An empty log.
   *
   * @param block the block, whose memory stays the VMM's
   * @throws dev.tidemark.ffm.LinuxException if there is no memory for the planes; nothing stays
   *     allocated then
   */
  public RamBlockLog(RamBlock block) {
    this.block = block;
    pages = block.pages();
    // Whole 64-byte lines, so that no kernel and no vector needs a tail at the plane's end.
    long planeBytes = (pages + 511) / 512 * 64;
    planeWords = planeBytes / 8;
    long lineBytes = (planeBytes / 64 + 511) / 512 * 64;
    Mapping one = null;
    Mapping two = null;
    Mapping three = null;
    try {
      one = Mapping.guarded(planeBytes + FillPlane.SLACK_BYTES);
      two = Mapping.guarded(planeBytes + FillPlane.SLACK_BYTES);
      three = Mapping.guarded(lineBytes);
      marks = new MarksPlane(planeBytes);
    } catch (Throwable e) {
      Unwind.closeAll(e, one, two, three);
      throw e;
    }
    planeA = one;
    planeB = two;
    lineMapping = three;
    lines = lineMapping.segment();
    fill = new FillPlane(this, ops, pages);
    fill.map = planeA.segment().asSlice(0, planeBytes);
    send = planeB.segment().asSlice(0, planeBytes);
  }

  /** The block that is tracked. */
  public RamBlock block() {
    return block;
  }

  /**
   * Marks pages that the caller has written: write first, then mark. Any thread, any time, without
   * waiting; found by the next sync that starts after this returned.
   *
   * <p>Cost: one atomic OR per 64 pages.
   *
   * @param page first page
   * @param count how many, at least 1
   * @throws IndexOutOfBoundsException if they are not all in the block
   * @throws ClosedException if the log is closed
   */
  public void mark(long page, long count) {
    if (page < 0 || count < 1 || page > pages - count) {
      throw new IndexOutOfBoundsException(
          String.format(
              Locale.ROOT,
              "pages %d+%d of block %s, which has %d",
              page,
              count,
              block.name(),
              pages));
    }
    try {
      marks.mark(page, count);
    } catch (IllegalStateException e) {
      // From the arena, which knows it without a check here.
      throw closedException();
    }
  }

  /** Makes every page dirty. */
  public void markAll() {
    try (FillPlane plane = fill()) {
      plane.set(0, pages);
    }
  }

  /**
   * Takes the fill plane, waiting for whoever has it.
   *
   * @return the log's one handle to it, to be closed by the same thread
   * @throws ClosedException if the log is closed
   */
  public FillPlane fill() {
    lock.lock();
    if (closed) {
      lock.unlock();
      throw closedException();
    }
    fill.holder = Thread.currentThread();
    return fill;
  }

  void checkNotClosed() {
    if (closed) {
      throw closedException();
    }
  }

  private ClosedException closedException() {
    return new ClosedException("log of block " + block.name());
  }

  void unlock() {
    if (lock.getHoldCount() == 1) {
      fill.holder = null;
    }
    lock.unlock();
  }

  MarksPlane marks() {
    return marks;
  }

  /** Brings the marks made so far into the fill plane; part of a sync, after all sources. */
  public void mergeMarks() {
    try (FillPlane plane = fill()) {
      plane.takeMarks();
    }
  }

  /**
   * Flips the planes: what was dirty becomes an epoch, and the log goes on collecting.
   *
   * @return the log's one epoch, open
   * @throws IllegalStateException if the last epoch is still open
   */
  public Epoch harvest() {
    try (FillPlane plane = fill()) {
      if (epoch.isOpen()) {
        throw new IllegalStateException("the last epoch of block " + block.name() + " is open");
      }
      MemorySegment collected = plane.map;
      // A kernel that reports by large entries may have set bits in the padding.
      ops.clear(collected, pages, planeWords * 64 - pages);
      // Before the flip: if this fails, the pages are still where the next harvest looks.
      long dirty = plane.full ? nameAllLines() : ops.summarize(collected, planeWords, lines);
      sendFull = plane.full;
      plane.full = false;
      plane.map = send;
      send = collected;
      epoch.begin(dirty);
      harvests++;
      return epoch;
    }
  }

  /** The summary of a plane that is full, which round one's is: its scan would take as long. */
  private long nameAllLines() {
    ops.set(lines, 0, planeWords >>> 3);
    return pages;
  }

  /** The epoch of the last harvest, open or not. */
  public Epoch epoch() {
    return epoch;
  }

  void resetToSendPlane(RunCursor cursor) {
    try (FillPlane _ = fill()) {
      if (sendFull) {
        cursor.resetToAll(pages, lease);
      } else {
        cursor.reset(send, lines, pages, lease);
      }
    }
  }

  void endEpoch(boolean giveBack) {
    try (FillPlane plane = fill()) {
      reading.lock();
      try {
        if (giveBack && sendFull) {
          plane.set(0, pages);
        } else if (giveBack) {
          ops.orLines(plane.map, send, planeWords, lines);
        }
        if (sendFull) {
          ops.clear(send, 0, pages);
        } else {
          ops.clearLines(send, planeWords, lines);
        }
      } finally {
        reading.unlock();
      }
    }
  }

  /**
   * Counts the dirty pages that a harvest would take now, marks not included.
   *
   * <p>Cost: one scan of the plane; for progress and tests, not for the loop.
   */
  public long dirtyPages() {
    try (FillPlane plane = fill()) {
      return ops.cardinality(plane.map, 0, pages);
    }
  }

  /** Reads the counters. */
  public LogCounters counters() {
    try (FillPlane plane = fill()) {
      return new LogCounters(
          planeWords,
          plane.mergedWords,
          plane.markWords,
          harvests,
          harvests * planeWords,
          plane.queries);
    }
  }

  /**
   * Frees the planes; waits for whoever holds the fill plane or reads a batch of the epoch's runs.
   * Whatever is called afterwards throws {@link ClosedException}. The block's memory stays.
   */
  @Override
  public void close() {
    lock.lock();
    reading.lock();
    try {
      if (closed) {
        return;
      }
      closed = true;
      fill.holder = null;
      epoch.end();
      Unwind.rethrow(Unwind.closeAll(null, planeA, planeB, lineMapping, marks));
    } finally {
      reading.unlock();
      lock.unlock();
    }
  }
}
