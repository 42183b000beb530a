package dev.tidemark.engine.source;

import dev.tidemark.engine.log.RamBlockLog;

/**
 * Something that reports written pages into RAM-block logs. A {@link DirtyTracker} starts, asks and
 * stops it, one call at a time.
 *
 * <p>The contract that keeps bits from being lost: when {@link #sync()} returns, every page written
 * before the call and not reported earlier is in its log, and the kernel notices the next write to
 * it. Where a source cannot promise that for some pages it throws, and the tracker has {@link
 * #markAll()} count them as dirty.
 */
public interface DirtySource extends AutoCloseable {
  /** Takes the pages that a source covers. */
  @FunctionalInterface
  interface Coverage {
    /**
     * Adds pages.
     *
     * @param log the log of their block
     * @param page first page
     * @param count how many
     */
    void add(RamBlockLog log, long page, long count);
  }

  /** What it is, for statistics and error messages, such as {@code kvm-manual}. */
  String name();

  /**
   * Says of which pages this source reports the writes of the guest's CPUs; always the same ones.
   * {@link DirtyTracker#start()} refuses a guest of which a page is covered by no source. A source
   * of what devices write covers nothing, as here: a page that only devices write is covered by the
   * VMM's word, {@link DirtyTracker#coverByMarks}.
   */
  default void cover(Coverage coverage) {}

  /**
   * Turns tracking on. Enabling may forget writes made before: the tracker marks every page
   * afterwards.
   *
   * @throws RuntimeException if it cannot; nothing stays turned on then
   */
  void start();

  /**
   * Brings what was written since the last call into the fill planes.
   *
   * @throws RuntimeException if the answer may be incomplete
   */
  void sync();

  /**
   * As {@link #sync()}, for a caller that has {@link #protect} called before it reads a page that
   * was reported: the kernel need not notice writes to it until then. So a page that the guest
   * writes before it is read costs no second notice, and is not sent again for it.
   *
   * @throws RuntimeException as sync
   */
  default void syncUnprotected() {
    sync();
  }

  /**
   * Has the kernel notice writes to pages that the last {@link #syncUnprotected()} reported, from
   * before this returns. More pages at a time is right: the next ones in order.
   *
   * @param log the log of their block
   * @param page first page
   * @param count how many
   * @return whether something was left to do
   * @throws RuntimeException if writes may go unnoticed
   */
  default boolean protect(RamBlockLog log, long page, long count) {
    return false;
  }

  /**
   * As {@link #sync()}, after the guest has stopped: the kernel need not notice writes from then
   * until {@link #stop()}. If there is another sync all the same, the pages reported here count as
   * dirty again.
   *
   * @throws RuntimeException as sync
   */
  default void lastSync() {
    sync();
  }

  /** Makes every page dirty that this source would have to report. */
  void markAll();

  /**
   * How many pages count as dirty all the time, as nothing tells when they are written. {@link
   * #sync()} leaves them out; {@link #markAlwaysDirty()} does not. They may be fewer or more at the
   * next call.
   *
   * @return 0 if all writes are tracked; pages that are counted more than once do no harm
   */
  default long alwaysDirtyPages() {
    return 0;
  }

  /** Makes the pages dirty that count as such all the time: once, after the guest has stopped. */
  default void markAlwaysDirty() {}

  /** Turns tracking off; what was not asked for is forgotten. Does nothing if it is off. */
  void stop();

  /** Frees what the source itself owns, tracking turned off. Borrowed descriptors stay open. */
  @Override
  void close();
}
