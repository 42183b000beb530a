package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtySource;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Unwind;
import java.util.Locale;

/**
 * What the devices of one IO address space wrote. It makes the address space's mappings too, so
 * that the ledger, the kernel and the log always agree: mapping and unmapping by another way loses
 * pages.
 *
 * <p>Threading: mappings are made and removed by any thread at any time; they and syncs wait for
 * each other, as the ledger's lock is held by each. The rest is the tracker's.
 *
 * <p>A mapping that is made while tracking is on is tracked from its first moment and starts clean:
 * it is not marked.
 */
public abstract class DmaSource implements DirtySource {
  final DmaMap map;
  final UnmapPolicy policy;
  final DmaScratch scratch;

  // An unmap's answers have a scratch of their own: it may come in the middle of nothing else, but
  // only after the kernel's unmap has returned may they be seen.
  final DmaScratch unmapScratch;
  private final DmaCursor cursor = new DmaCursor();
  private final DmaRuns unmapRuns = new DmaRuns();

  /** Whether the tracker has started this source. */
  boolean started;

  private long unmaps;
  private long queried;
  private long windowNanos;
  private long longestWindowNanos;
  private long openPages;
  private long takenPages;
  private long wholePages;
  private long failedQueries;
  private long failedUnmaps;

  DmaSource(DmaMap map, UnmapPolicy policy) {
    this.map = map;
    this.policy = policy;
    scratch = new DmaScratch();
    try {
      unmapScratch = new DmaScratch();
    } catch (Throwable e) {
      Unwind.closeAll(e, scratch);
      throw e;
    }
  }

  /** When it can be asked what was written to a range that goes away. */
  enum AskAt {
    /** The bits die with the mapping. */
    BEFORE_UNMAP,

    /** The kernel unmaps and tells in one call. */
    WITH_UNMAP,

    /** The bits are kept elsewhere, and complete only when nobody can write any more. */
    AFTER_UNMAP
  }

  /** Makes the kernel's mapping. */
  abstract void mapInKernel(long iova, long address, long bytes, boolean writable);

  /**
   * Removes the kernel's mappings.
   *
   * @return bytes that were mapped
   */
  abstract long unmapInKernel(long iova, long bytes);

  /** Whether devices' writes are not tracked now, so that all they may write counts as dirty. */
  abstract boolean isAlwaysDirty();

  /** When to ask about an unmap. */
  abstract AskAt askAt();

  /** How many pages can be asked for in one call around an unmap. */
  abstract long mostPages();

  /**
   * Asks for a run that is about to be unmapped, or was.
   *
   * @param bit where in {@link #unmapScratch} its answer goes, a multiple of 64
   */
  abstract void queryForUnmap(long iova, long bytes, long bit);

  /**
   * How many pages share a bit where it is kept, a power of two. What is asked after an unmap is
   * made of whole ones, and the answer may reach as far again past its end.
   */
  long trackedPages() {
    return 1;
  }

  /**
   * Unmaps and asks in one call, where the kernel can; the answer is in {@link #unmapScratch} from
   * its first bit on.
   *
   * @return bytes that were mapped
   */
  abstract long unmapAndQuery(long iova, long bytes);

  /**
   * Brings what was written into the fill planes, under the ledger's lock.
   *
   * @throws RuntimeException if the answer may be incomplete
   */
  abstract void ask();

  /** Asks; after a failure everything that devices may write is marked. */
  @Override
  public final void sync() {
    map.lock();
    try {
      ask();
    } catch (Throwable e) {
      // Before the lock is given back: with an unmap the ledger forgets what would have to be
      // marked.
      map.markWritable();
      throw e;
    } finally {
      map.unlock();
    }
  }

  /** The ledger of this address space; only to be read. */
  public DmaMap map() {
    return map;
  }

  /**
   * Maps pages of a block for devices, in the kernel and in the ledger.
   *
   * @param iova where devices see them, bytes, a multiple of the page
   * @param bytes how much, a multiple of the page
   * @param log the log of the block
   * @param page the first page of the block
   * @param writable whether devices may write there
   * @throws IllegalStateException if something is mapped there already
   * @throws IllegalArgumentException if it is not made of whole pages, or too large to be asked for
   *     in one call
   * @throws LinuxException if the kernel refuses; nothing is mapped then
   */
  public void map(long iova, long bytes, RamBlockLog log, long page, boolean writable) {
    if (bytes >>> Pages.SHIFT > mostPages()) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "a mapping of %d bytes: one bitmap takes %d pages: map it in parts",
              bytes,
              mostPages()));
    }
    map.lock();
    try {
      map.map(iova, bytes, log, page, writable);
      try {
        mapInKernel(iova, log.block().address() + (page << Pages.SHIFT), bytes, writable);
      } catch (Throwable e) {
        map.unmap(iova, bytes);
        throw e;
      }
    } finally {
      map.unlock();
    }
  }

  /**
   * Unmaps whole mappings; what devices wrote there reaches the log. Holes do not matter.
   *
   * @param iova the first address
   * @param bytes how many
   * @return bytes that were mapped
   * @throws IllegalStateException if a mapping is only partly in the range; nothing is unmapped
   *     then
   * @throws LinuxException if the kernel left something mapped, which stays in the ledger; the rest
   *     is unmapped, and all of it counts as dirty
   */
  public long unmap(long iova, long bytes) {
    long first = DmaMap.pageOf(iova, bytes);
    long end = first + (bytes >>> Pages.SHIFT);
    map.lock();
    try {
      map.checkWhole(first, end);
      return unmapPages(first, end) << Pages.SHIFT;
    } finally {
      map.unlock();
    }
  }

  /**
   * Unmaps everything, as before the devices get another address space; as {@link #unmap}.
   *
   * @return bytes that were mapped
   */
  public long unmapAll() {
    map.lock();
    try {
      return unmapPages(0, Long.MAX_VALUE) << Pages.SHIFT;
    } finally {
      map.unlock();
    }
  }

  private long unmapPages(long begin, long end) {
    long before = map.pages();
    Throwable failure = null;
    for (long at = begin; ; ) {
      unmapRuns.resetPages(map, DmaRuns.Kind.ALL, at, end);
      if (!unmapRuns.next()) {
        break;
      }
      long first = unmapRuns.iovaPage();
      at = first;
      long last = first + unmapRuns.pages();
      while (at < last) {
        long part = part(at, last);
        try {
          unmapRun(at, part);
        } catch (Throwable e) {
          failure = Unwind.join(failure, e);
        }
        at += part;
      }
    }
    Unwind.rethrow(failure);
    return before - map.pages();
  }

  /** How much of a run can be asked for in one call, cut where a mapping ends. */
  long part(long from, long end) {
    if (end - from <= mostPages()) {
      return end - from;
    }
    cursor.resetPages(map, from, end);
    long pages = 0;
    while (cursor.next() && (pages == 0 || pages + cursor.pages() <= mostPages())) {
      pages += cursor.pages();
    }
    return pages;
  }

  private void unmapRun(long first, long pages) {
    long iova = first << Pages.SHIFT;
    long bytes = pages << Pages.SHIFT;
    unmapRuns.resetPages(map, DmaRuns.Kind.SPANNING, first, first + pages);
    // Nothing to ask where devices may not write.
    boolean ask = started && !isAlwaysDirty() && unmapRuns.next();
    boolean whole = started && isAlwaysDirty();
    AskAt when = askAt();
    if (ask && when != AskAt.WITH_UNMAP && policy == UnmapPolicy.STRICT) {
      // A log that outlives the mapping is read all the same: what is mapped there next must not
      // inherit its bits, and those of its neighbours may have to be taken with them.
      ask = when == AskAt.AFTER_UNMAP;
      whole = true;
    }
    // The kernel's own query covers all that it unmaps; ours what devices may write.
    long askedFirst = first;
    long askedPages = pages;
    if (ask && when != AskAt.WITH_UNMAP) {
      long tracked = when == AskAt.AFTER_UNMAP ? trackedPages() : 1;
      askedFirst = unmapRuns.iovaPage() & -tracked;
      askedPages = (unmapRuns.iovaPage() + unmapRuns.pages() + tracked - 1 & -tracked) - askedFirst;
    }
    long bit = 0;
    long begin = System.nanoTime();
    boolean placed = false;
    boolean answered = false;
    boolean unmapped = false;
    long gone = 0;
    Throwable failure = null;
    Error error = null;
    if (ask && when != AskAt.AFTER_UNMAP) {
      boolean tells = when == AskAt.WITH_UNMAP;
      try {
        bit = tells ? unmapScratch.reserve(pages) : unmapScratch.place(askedPages);
        placed = true;
        if (tells) {
          gone = unmapAndQuery(iova, bytes);
          unmapped = true;
        } else {
          queryForUnmap(unmapRuns.iova(), unmapRuns.bytes(), bit);
        }
        answered = true;
      } catch (Throwable e) {
        error = e instanceof Error thrown ? thrown : null;
        failedQueries++;
        whole = true;
      }
    }
    if (!unmapped) {
      try {
        gone = unmapInKernel(iova, bytes);
      } catch (Throwable e) {
        failure = e;
      }
    }
    long nanos = System.nanoTime() - begin;
    long wholeFirst = first;
    long wholeEnd = first + pages;
    if (ask && when == AskAt.AFTER_UNMAP) {
      try {
        // Behind the answer is room for whoever reports a tracked page too many.
        bit = unmapScratch.reserve((DmaScratch.words(askedPages) << 6) + trackedPages());
        placed = true;
        queryForUnmap(askedFirst << Pages.SHIFT, askedPages << Pages.SHIFT, bit);
        answered = true;
      } catch (Throwable e) {
        error = e instanceof Error thrown ? thrown : null;
        failedQueries++;
        whole = true;
        wholeFirst = Math.min(first, askedFirst);
        wholeEnd = Math.max(wholeEnd, askedFirst + askedPages);
      }
    }
    if (gone != bytes) {
      failedUnmaps++;
      whole = started;
    }
    // Only now: a page marked earlier could have been sent before its last write.
    if (whole) {
      wholePages += markWritable(wholeFirst, wholeEnd - wholeFirst);
    }
    if (answered && (!whole || when == AskAt.AFTER_UNMAP)) {
      long taken = unmapScratch.mark(map, askedFirst, askedPages, bit);
      takenPages += whole ? 0 : taken;
      openPages += when == AskAt.BEFORE_UNMAP ? writablePages(first, pages) - taken : 0;
    } else if (placed) {
      unmapScratch.clear(bit, askedPages);
    }
    if (started) {
      unmaps++;
      if (answered && when == AskAt.BEFORE_UNMAP) {
        queried++;
        windowNanos += nanos;
        longestWindowNanos = Math.max(longestWindowNanos, nanos);
      }
    }
    if (failure != null) {
      unmapEach(first, pages, failure);
    } else {
      map.unmap(iova, bytes);
    }
    // Only now: nothing may be left undone that keeps ledger, kernel and log in step.
    Unwind.rethrow(error);
  }

  private long writablePages(long first, long pages) {
    long writable = 0;
    cursor.resetPages(map, first, first + pages);
    while (cursor.next()) {
      writable += cursor.isWritable() ? cursor.pages() : 0;
    }
    return writable;
  }

  private long markWritable(long first, long pages) {
    long marked = 0;
    cursor.resetPages(map, first, first + pages);
    while (cursor.next()) {
      if (cursor.isWritable()) {
        cursor.log().mark(cursor.page(), cursor.pages());
        marked += cursor.pages();
      }
    }
    return marked;
  }

  /**
   * After a failed unmap the kernel may have unmapped some of it; asked for one mapping at a time
   * it says which. What stays mapped stays in the ledger, as devices go on writing there.
   */
  private void unmapEach(long first, long pages, Throwable failure) {
    if (!(failure instanceof LinuxException)) {
      Unwind.rethrow(failure);
    }
    boolean left = false;
    for (long at = first; at < first + pages; ) {
      cursor.resetPages(map, at, first + pages);
      if (!cursor.next()) {
        break;
      }
      long iova = cursor.iova();
      long bytes = cursor.bytes();
      at = cursor.iovaPage() + cursor.pages();
      boolean gone = true;
      try {
        unmapInKernel(iova, bytes);
      } catch (LinuxException e) {
        gone = e.errno() == Errno.ENOENT;
      }
      if (gone) {
        if (started) {
          markWritable(iova >>> Pages.SHIFT, bytes >>> Pages.SHIFT);
        }
        map.unmap(iova, bytes);
      } else {
        left = true;
      }
    }
    if (left) {
      Unwind.rethrow(failure);
    }
  }

  /** What unmaps came to since this source was made. */
  public UnmapReport unmapReport() {
    map.lock();
    try {
      return new UnmapReport(
          unmaps,
          queried,
          windowNanos,
          longestWindowNanos,
          openPages,
          takenPages,
          wholePages,
          failedQueries,
          failedUnmaps);
    } finally {
      map.unlock();
    }
  }

  @Override
  public void markAll() {
    map.markWritable();
  }

  /** As many as devices may write if nothing tracks them, counted as often as they are mapped. */
  @Override
  public long alwaysDirtyPages() {
    map.lock();
    try {
      return started && isAlwaysDirty() ? map.writablePages() : 0;
    } finally {
      map.unlock();
    }
  }

  @Override
  public void markAlwaysDirty() {
    map.lock();
    try {
      if (started && isAlwaysDirty()) {
        map.markWritable();
      }
    } finally {
      map.unlock();
    }
  }

  /** Turns tracking off and frees the scratch planes; mappings and descriptors stay. */
  @Override
  public void close() {
    map.lock();
    try {
      Throwable failure = Unwind.attempt(null, this::stop);
      Unwind.rethrow(Unwind.closeAll(failure, scratch, unmapScratch));
    } finally {
      map.unlock();
    }
  }
}
