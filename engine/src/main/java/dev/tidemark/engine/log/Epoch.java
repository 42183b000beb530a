package dev.tidemark.engine.log;

import dev.tidemark.engine.bitmap.RunCursor;

/**
 * The pages that one harvest took, as a lease. {@link #commit()} says that the other side has them;
 * {@link #abort()}, or closing the epoch uncommitted, gives all of them back to the log.
 *
 * <p>Each log has one epoch object, so that harvesting allocates nothing: after commit or abort it
 * refuses to work until the next {@link RamBlockLog#harvest()} opens it again.
 *
 * <p>Threading: one thread at a time. Cost: commit and abort touch only 64-byte lines with dirty
 * pages; iterating likewise.
 */
public final class Epoch implements AutoCloseable {
  private final RamBlockLog log;
  private final RunCursor cursor = new RunCursor();
  private boolean open;

  /** Whether the cursor is on this epoch's pages. */
  private boolean iterating;

  private long pages;

  Epoch(RamBlockLog log) {
    this.log = log;
  }

  void begin(long count) {
    pages = count;
    open = true;
    iterating = false;
  }

  /** Ends it with its log. */
  void end() {
    open = false;
  }

  boolean isOpen() {
    return open;
  }

  /** Before a batch is read. */
  void checkIterating() {
    checkOpen();
    if (!iterating) {
      throw new IllegalStateException(
          "the cursor is on an epoch of block " + log.block().name() + " that ended: runs() first");
    }
  }

  private void checkOpen() {
    if (!open) {
      log.checkNotClosed();
      throw new IllegalStateException(
          "the epoch of block " + log.block().name() + " was committed or aborted");
    }
  }

  /** The block whose pages these are. */
  public RamBlock block() {
    return log.block();
  }

  /**
   * How many pages the epoch holds.
   *
   * @throws IllegalStateException if it was committed or aborted; a {@link
   *     dev.tidemark.ffm.ClosedException} if its log is closed
   */
  public long pages() {
    checkOpen();
    return pages;
  }

  /**
   * The epoch's runs of consecutive dirty pages, in ascending order, from the first.
   *
   * @return the epoch's one cursor, set back to the start. Once the epoch has ended its {@link
   *     RunCursor#batch()} throws IllegalStateException, a {@link dev.tidemark.ffm.ClosedException}
   *     if the log was closed
   */
  public RunCursor runs() {
    checkOpen();
    log.resetToSendPlane(cursor);
    iterating = true;
    return cursor;
  }

  /** The other side has every page: forgets them. */
  public void commit() {
    checkOpen();
    log.endEpoch(false);
    open = false;
  }

  /** Gives every page back to the log. */
  public void abort() {
    checkOpen();
    log.endEpoch(true);
    open = false;
  }

  /** Aborts the epoch if it is still open; with the log it is closed already. */
  @Override
  public void close() {
    if (open) {
      abort();
    }
  }
}
