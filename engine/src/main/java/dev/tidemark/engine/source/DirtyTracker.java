package dev.tidemark.engine.source;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.internal.Unwind;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.locks.ReentrantLock;

/**
 * All logs and all dirty sources of one guest, in step: starts every source before the first bit
 * counts, asks all of them in a sync, harvests all logs together.
 *
 * <p>The set of blocks is fixed; sources may be added while tracking is on.
 *
 * <p>Every page must be covered: by a source that reports what the guest's CPUs write there ({@link
 * DirtySource#cover}), or by the VMM's word ({@link #coverByMarks}). Tracking does not start
 * otherwise.
 *
 * <p>Threading: one thread at a time calls into the tracker, except {@link RamBlockLog#mark} on its
 * logs; what changes the tracker while another thread does, or has {@linkplain #claim() claimed}
 * it, throws IllegalStateException and changes nothing. {@link #close()} from any thread, at any
 * time but from a source's own callbacks; whatever is called afterwards throws {@link
 * ClosedException}. Cost of a sync and of a harvest: see the sources and the log; no allocation.
 */
public final class DirtyTracker implements AutoCloseable {
  /** Uncovered ranges that an error names. */
  private static final int MOST_GAPS = 8;

  private final RamBlockLog[] logs;
  private final List<RamBlockLog> logList;
  private final List<DirtySource> sources = new ArrayList<>();
  private final List<Covered> marked = new ArrayList<>();

  /** Held in each call that changes something. */
  private final ReentrantLock calls = new ReentrantLock();

  /** Whose the tracker is, if it is claimed. */
  private volatile Thread claimant;

  private volatile boolean closed;
  private boolean freed;
  private volatile boolean tracking;

  /** Whether a source failed whose pages could not even be marked. */
  private boolean allDirty;

  private long failures;
  private RuntimeException lastFailure;

  /** By source, once somebody has asked for it. */
  private long[] shares;

  /** When the kernel has to notice the next write to a page that was reported. */
  private enum Sync {
    PROTECTING,
    UNPROTECTED,
    LAST
  }

  private record Covered(RamBlockLog log, long page, long count) {}

  /**
   * @param blocks the guest's RAM blocks, names all different, no page in two of them; their memory
   *     is borrowed
   * @throws IllegalArgumentException if they are not, or there is none
   * @throws dev.tidemark.ffm.LinuxException if there is no memory for the logs; nothing stays
   *     allocated then
   */
  public DirtyTracker(List<RamBlock> blocks) {
    if (blocks.isEmpty()) {
      throw new IllegalArgumentException("a guest has at least one block");
    }
    RamBlock.checkTogether(blocks);
    logs = new RamBlockLog[blocks.size()];
    try {
      for (int i = 0; i < logs.length; i++) {
        logs[i] = new RamBlockLog(blocks.get(i));
      }
    } catch (Throwable e) {
      Unwind.closeAll(e, logs);
      throw e;
    }
    logList = List.of(logs);
  }

  /** The logs, in the order of the blocks. */
  public List<RamBlockLog> logs() {
    return logList;
  }

  /**
   * The log of a block.
   *
   * @throws IllegalArgumentException if it is none of this guest's
   */
  public RamBlockLog log(RamBlock block) {
    return Arrays.stream(logs)
        .filter(log -> log.block().equals(block))
        .findFirst()
        .orElseThrow(() -> new IllegalArgumentException(block + " is not tracked here"));
  }

  /**
   * Takes the tracker for the calling thread: until {@link #release()} every other thread's call is
   * refused, but {@link #close()}.
   *
   * @throws IllegalStateException if tracking is on, or it is another thread's
   */
  public void claim() {
    enter();
    try {
      if (tracking) {
        throw new IllegalStateException("tracking is on, for somebody else: stop() first");
      }
      if (claimant != null) {
        throw new IllegalStateException("the tracker is this thread's already");
      }
      claimant = Thread.currentThread();
    } finally {
      calls.unlock();
    }
  }

  /**
   * Ends what {@link #claim()} began: turns tracking off, as {@link #stop()}, and gives the tracker
   * back, whatever fails.
   *
   * @throws IllegalStateException if it is not the calling thread's
   * @throws RuntimeException as stop
   */
  public void release() {
    if (claimant != Thread.currentThread()) {
      throw new IllegalStateException("the tracker is not this thread's: claim() first");
    }
    calls.lock();
    try {
      claimant = null;
      if (!closed) {
        Unwind.rethrow(stopAll());
      }
    } finally {
      calls.unlock();
    }
  }

  /** Lets the calling thread in, which gives the lock back; or refuses, and nothing has changed. */
  private void enter() {
    Thread me = Thread.currentThread();
    Thread other = claimant;
    if (other == me) {
      calls.lock();
    } else if (other != null || !calls.tryLock()) {
      throw inUse(other);
    }
    other = claimant;
    if (closed || other != null && other != me) {
      calls.unlock();
      throw closed ? new ClosedException("tracker") : inUse(other);
    }
  }

  private static IllegalStateException inUse(Thread other) {
    return new IllegalStateException(
        "the tracker is in use by "
            + (other == null ? "another thread" : "thread " + other.getName())
            + ": one at a time; what else uses it must end first");
  }

  /**
   * Says that the VMM itself marks every write of the guest's CPUs to these pages ({@link
   * RamBlockLog#mark}), or that CPUs never write there: memory that only devices write, or that no
   * slot shows to the guest. No source has to cover them then.
   *
   * @param log the log of their block
   * @param page first page
   * @param count how many
   * @throws IndexOutOfBoundsException if they are not all in the block
   */
  public void coverByMarks(RamBlockLog log, long page, long count) {
    enter();
    try {
      marked.add(covered("the VMM", log, page, count));
    } finally {
      calls.unlock();
    }
  }

  private Covered covered(String by, RamBlockLog log, long page, long count) {
    Objects.checkFromIndexSize(page, count, log.block().pages());
    if (!logList.contains(log)) {
      throw new IllegalArgumentException(
          by + " covers block " + log.block() + " by a log that is none of this tracker's");
    }
    return new Covered(log, page, count);
  }

  /**
   * Adds a source, which the tracker closes with itself. While tracking is on it is started at once
   * and all that it may have missed counts as dirty.
   *
   * @throws IllegalArgumentException if it reports into a log that is not this tracker's
   * @throws RuntimeException if it cannot start; it stays the caller's then, and off
   */
  public void add(DirtySource source) {
    enter();
    try {
      source.cover((log, page, count) -> covered(source.name(), log, page, count));
      if (tracking) {
        source.start();
        try {
          source.markAll();
        } catch (Throwable e) {
          Unwind.attempt(e, source::stop);
          throw e;
        }
      }
      sources.add(source);
    } finally {
      calls.unlock();
    }
  }

  /** The names of the sources. */
  public List<String> sourceNames() {
    return sources.stream().map(DirtySource::name).toList();
  }

  /**
   * Starts every source, then makes every page dirty: what was written before a source was on is
   * not known.
   *
   * @throws IllegalStateException if pages are covered by no source, naming them; or if tracking is
   *     on already
   * @throws RuntimeException if a source cannot start; those that were started are stopped again
   */
  public void start() {
    enter();
    try {
      if (tracking) {
        throw new IllegalStateException("tracking is on already");
      }
      checkCovered();
      int started = 0;
      try {
        for (; started < sources.size(); started++) {
          sources.get(started).start();
        }
        markEverything();
      } catch (Throwable e) {
        while (started > 0) {
          Unwind.attempt(e, sources.get(--started)::stop);
        }
        throw e;
      }
      tracking = true;
    } finally {
      calls.unlock();
    }
  }

  private void markEverything() {
    for (RamBlockLog log : logs) {
      log.markAll();
    }
    allDirty = false;
  }

  private void checkCovered() {
    List<Covered> all = new ArrayList<>(marked);
    for (DirtySource source : sources) {
      source.cover((log, page, count) -> all.add(covered(source.name(), log, page, count)));
    }
    all.sort((one, two) -> Long.compare(one.page, two.page));
    List<String> gaps = new ArrayList<>();
    for (RamBlockLog log : logs) {
      long end = 0;
      for (Covered covered : all) {
        if (covered.log == log) {
          addGap(gaps, log, end, covered.page);
          end = Math.max(end, covered.page + covered.count);
        }
      }
      addGap(gaps, log, end, log.block().pages());
    }
    if (!gaps.isEmpty()) {
      int told = Math.min(gaps.size(), MOST_GAPS);
      throw new IllegalStateException(
          String.join(", ", gaps.subList(0, told))
              + (gaps.size() > told ? ", and " + (gaps.size() - told) + " more ranges," : "")
              + " are covered by no source: add one that covers them (for KVM: name their slot to"
              + " it), or say that the VMM marks them itself (coverByMarks)");
    }
  }

  private static void addGap(List<String> gaps, RamBlockLog log, long from, long end) {
    if (from < end) {
      gaps.add(
          String.format(
              Locale.ROOT, "pages %d+%d of block %s", from, end - from, log.block().name()));
    }
  }

  /** Whether tracking is on. */
  public boolean isTracking() {
    return tracking;
  }

  /**
   * Asks every source, then takes the marks. A source that fails does not end the sync: all its
   * pages count as dirty, which costs time and loses nothing, and the failure is counted.
   *
   * @throws Error what a source threw, if it was an Error: after the rest of the sync
   */
  public void sync() {
    sync(Sync.PROTECTING);
  }

  /**
   * As {@link #sync()}, for a caller that calls {@link #protect} before it reads a page: until then
   * writes to it need no notice, so that a page is not sent twice for them.
   *
   * @throws Error as sync
   */
  public void syncUnprotected() {
    sync(Sync.UNPROTECTED);
  }

  /**
   * Has the kernel notice writes to pages of the open epoch from now on: after {@link
   * #syncUnprotected()}, before they are read. In ascending order it costs the least. A source that
   * fails has all its pages counted as dirty, as in a sync.
   *
   * @param log the log of their block
   * @param page first page
   * @param count how many
   * @return whether the kernel was asked: what was found out about such pages before, such as that
   *     they are holes, may have changed unnoticed
   * @throws Error what a source threw, if it was an Error
   */
  public boolean protect(RamBlockLog log, long page, long count) {
    enter();
    try {
      boolean asked = false;
      Error error = null;
      for (int i = 0; i < sources.size(); i++) {
        DirtySource source = sources.get(i);
        try {
          asked |= source.protect(log, page, count);
        } catch (Throwable e) {
          asked = true;
          error = failed(source, e, error);
        }
      }
      if (error != null) {
        throw error;
      }
      return asked;
    } finally {
      calls.unlock();
    }
  }

  /**
   * The sync after the guest has stopped: as {@link #sync()}, and with the pages of which nothing
   * tells when they are written. What is written after it may go unnoticed until tracking was
   * stopped and started.
   *
   * @throws Error as sync
   */
  public void lastSync() {
    sync(Sync.LAST);
  }

  private void sync(Sync kind) {
    enter();
    try {
      Error error = ask(kind);
      mergeMarks();
      if (error != null) {
        throw error;
      }
    } finally {
      calls.unlock();
    }
  }

  private Error ask(Sync kind) {
    if (!tracking) {
      throw new IllegalStateException("tracking is off: start() first");
    }
    long before = 0;
    if (shares != null) {
      shares = shares.length == sources.size() ? shares : new long[sources.size()];
      mergeMarks();
      before = dirtyPages();
    }
    Error error = null;
    for (int i = 0; i < sources.size(); i++) {
      DirtySource source = sources.get(i);
      try {
        switch (kind) {
          case PROTECTING -> source.sync();
          case UNPROTECTED -> source.syncUnprotected();
          case LAST -> source.lastSync();
        }
      } catch (Throwable e) {
        error = failed(source, e, error);
      }
      if (kind == Sync.LAST) {
        try {
          source.markAlwaysDirty();
        } catch (Throwable e) {
          error = failed(source, e, error);
        }
      }
      if (shares != null) {
        mergeMarks();
        long now = dirtyPages();
        shares[i] = now - before;
        before = now;
      }
    }
    if (allDirty) {
      markEverything();
    }
    return error;
  }

  /** Counts a failure, and all that the source would have to report as dirty. */
  private Error failed(DirtySource source, Throwable failure, Error before) {
    failures++;
    if (failure instanceof RuntimeException e) {
      lastFailure = e;
    }
    try {
      source.markAll();
    } catch (Throwable e) {
      // Kept until it was done, in this sync or a later one.
      allDirty = true;
      Unwind.join(failure, e);
    }
    return before == null && failure instanceof Error e ? e : before;
  }

  private long dirtyPages() {
    long pages = 0;
    for (RamBlockLog log : logs) {
      pages += log.dirtyPages();
    }
    return pages;
  }

  private void mergeMarks() {
    for (RamBlockLog log : logs) {
      log.mergeMarks();
    }
  }

  /**
   * How many pages there would be after the last sync, at most, if nothing were written any more.
   *
   * @param harvested what {@link #harvest()} has returned
   * @return these and the pages that count as dirty all the time, no more than the guest has
   */
  public long pagesAtStop(long harvested) {
    long pages = harvested;
    long all = 0;
    for (RamBlockLog log : logs) {
      all += log.block().pages();
    }
    for (int i = 0; i < sources.size(); i++) {
      pages += sources.get(i).alwaysDirtyPages();
    }
    return Math.min(all, pages);
  }

  /**
   * What a source contributed to a sync.
   *
   * @param source its name
   * @param pages how many pages it made dirty that were not
   */
  public record Share(String source, long pages) {}

  /**
   * What each source contributed to the last sync, in the order in which they were asked and added;
   * a page that several have written is the first one's. The first call only turns the counting on,
   * which costs a pass over the fill planes per source and sync.
   *
   * @return empty until there was a sync after the first call
   */
  public List<Share> shares() {
    if (shares == null) {
      shares = new long[0];
    }
    List<Share> result = new ArrayList<>();
    for (int i = 0; i < shares.length; i++) {
      result.add(new Share(sources.get(i).name(), shares[i]));
    }
    return result;
  }

  /** How many answers of sources were replaced by marking everything. */
  public long failures() {
    return failures;
  }

  /** What the last of them failed with, or null. */
  public RuntimeException lastFailure() {
    return lastFailure;
  }

  /**
   * Flips the planes of every log.
   *
   * @return how many pages the epochs hold together; see {@link RamBlockLog#epoch()}
   */
  public long harvest() {
    enter();
    try {
      if (allDirty) {
        markEverything();
      }
      long pages = 0;
      for (RamBlockLog log : logs) {
        pages += log.harvest().pages();
      }
      return pages;
    } finally {
      calls.unlock();
    }
  }

  /** Commits the open epoch of every log: the other side has the pages. */
  public void commit() {
    enter();
    try {
      for (RamBlockLog log : logs) {
        log.epoch().commit();
      }
    } finally {
      calls.unlock();
    }
  }

  /** Gives the pages of every open epoch back. */
  public void abort() {
    enter();
    try {
      Unwind.rethrow(abortAll());
    } finally {
      calls.unlock();
    }
  }

  private Throwable abortAll() {
    Throwable failure = null;
    for (RamBlockLog log : logs) {
      failure = Unwind.attempt(failure, log.epoch()::close);
    }
    return failure;
  }

  /**
   * Gives open epochs back and stops every source, all of them even if one fails.
   *
   * @throws RuntimeException the first failure, with the others suppressed in it
   */
  public void stop() {
    enter();
    try {
      Unwind.rethrow(stopAll());
    } finally {
      calls.unlock();
    }
  }

  private Throwable stopAll() {
    tracking = false;
    Throwable failure = abortAll();
    for (DirtySource source : sources) {
      failure = Unwind.attempt(failure, source::stop);
    }
    return failure;
  }

  /**
   * Stops and closes the sources and frees the logs, all of them even if one fails. A migration
   * that another thread runs on this tracker fails by it, and its guest goes on at the source.
   * Waits for a call of another thread that is in the tracker, such as a sync: the thread of a
   * vCPU, for which a sync waits, must not close it.
   *
   * @throws RuntimeException the first failure, with the others suppressed in it
   */
  @Override
  public void close() {
    closed = true;
    calls.lock();
    try {
      if (freed) {
        return;
      }
      freed = true;
      Throwable failure = tracking ? stopAll() : null;
      failure = Unwind.closeAll(failure, sources.toArray(DirtySource[]::new));
      Unwind.rethrow(Unwind.closeAll(failure, logs));
    } finally {
      calls.unlock();
    }
  }
}
