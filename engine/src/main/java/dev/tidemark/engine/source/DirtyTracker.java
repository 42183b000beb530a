package dev.tidemark.engine.source;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * All logs and all dirty sources of one guest, in step: starts every source before the first bit
 * counts, asks all of them in a sync, harvests all logs together.
 *
 * <p>The set of blocks is fixed; sources may be added while tracking is on.
 *
 * <p>Threading: one thread at a time calls into the tracker, except {@link RamBlockLog#mark} on its
 * logs. Cost of a sync and of a harvest: see the sources and the log; no allocation.
 */
public final class DirtyTracker implements AutoCloseable {
  private final RamBlockLog[] logs;
  private final List<RamBlockLog> logList;
  private final List<DirtySource> sources = new ArrayList<>();
  private boolean tracking;
  private long failures;
  private RuntimeException lastFailure;

  /** By source, once somebody has asked for it. */
  private long[] shares;

  /**
   * @param blocks the guest's RAM blocks, names all different; their memory is borrowed
   */
  public DirtyTracker(List<RamBlock> blocks) {
    long names = blocks.stream().map(RamBlock::name).distinct().count();
    if (blocks.isEmpty() || names != blocks.size()) {
      throw new IllegalArgumentException(
          "blocks need one name each, and there must be one: " + blocks);
    }
    logs = new RamBlockLog[blocks.size()];
    for (int i = 0; i < logs.length; i++) {
      logs[i] = new RamBlockLog(blocks.get(i));
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
   * Adds a source, which the tracker closes with itself. While tracking is on it is started at once
   * and all that it may have missed counts as dirty.
   */
  public void add(DirtySource source) {
    if (tracking) {
      source.start();
      source.markAll();
    }
    sources.add(source);
  }

  /** The names of the sources. */
  public List<String> sourceNames() {
    return sources.stream().map(DirtySource::name).toList();
  }

  /**
   * Starts every source, then makes every page dirty: what was written before a source was on is
   * not known.
   *
   * @throws RuntimeException if a source cannot start; those that were started are stopped again
   */
  public void start() {
    if (tracking) {
      throw new IllegalStateException("tracking is on already");
    }
    int started = 0;
    try {
      for (; started < sources.size(); started++) {
        sources.get(started).start();
      }
    } catch (RuntimeException e) {
      while (started > 0) {
        stop(sources.get(--started), e);
      }
      throw e;
    }
    for (RamBlockLog log : logs) {
      log.markAll();
    }
    tracking = true;
  }

  /** Whether tracking is on. */
  public boolean isTracking() {
    return tracking;
  }

  /**
   * Asks every source, then takes the marks. A source that fails does not end the sync: all its
   * pages count as dirty, which costs time and loses nothing, and the failure is counted.
   */
  public void sync() {
    ask(false);
    mergeMarks();
  }

  /**
   * The sync after the guest has stopped: as {@link #sync()}, and with the pages of which nothing
   * tells when they are written.
   */
  public void lastSync() {
    ask(true);
    mergeMarks();
  }

  private void ask(boolean last) {
    if (!tracking) {
      throw new IllegalStateException("tracking is off: start() first");
    }
    long before = 0;
    if (shares != null) {
      shares = shares.length == sources.size() ? shares : new long[sources.size()];
      mergeMarks();
      before = dirtyPages();
    }
    for (int i = 0; i < sources.size(); i++) {
      DirtySource source = sources.get(i);
      try {
        source.sync();
      } catch (RuntimeException e) {
        source.markAll();
        failures++;
        lastFailure = e;
      }
      if (last) {
        source.markAlwaysDirty();
      }
      if (shares != null) {
        mergeMarks();
        long now = dirtyPages();
        shares[i] = now - before;
        before = now;
      }
    }
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
    long pages = 0;
    for (RamBlockLog log : logs) {
      pages += log.harvest().pages();
    }
    return pages;
  }

  /** Commits the open epoch of every log: the other side has the pages. */
  public void commit() {
    for (RamBlockLog log : logs) {
      log.epoch().commit();
    }
  }

  /** Gives the pages of every open epoch back. */
  public void abort() {
    for (RamBlockLog log : logs) {
      log.epoch().close();
    }
  }

  /**
   * Gives open epochs back and stops every source, all of them even if one fails.
   *
   * @throws RuntimeException the first failure, with the others suppressed in it
   */
  public void stop() {
    abort();
    tracking = false;
    RuntimeException failure = null;
    for (DirtySource source : sources) {
      failure = stop(source, failure);
    }
    if (failure != null) {
      throw failure;
    }
  }

  private static RuntimeException stop(DirtySource source, RuntimeException before) {
    try {
      source.stop();
      return before;
    } catch (RuntimeException e) {
      if (before == null) {
        return e;
      }
      before.addSuppressed(e);
      return before;
    }
  }

  /** Stops and closes the sources and frees the logs. */
  @Override
  public void close() {
    if (tracking) {
      stop();
    }
    for (DirtySource source : sources) {
      source.close();
    }
    for (RamBlockLog log : logs) {
      log.close();
    }
  }
}
