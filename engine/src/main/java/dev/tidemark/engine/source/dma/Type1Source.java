package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.vfio.VfioContainer;

/**
 * What the devices of a VFIO type1 container wrote ({@code VFIO_IOMMU_DIRTY_PAGES}). The kernel
 * overwrites: a scratch plane takes its answer and one fused merge brings it into the log.
 *
 * <p>With a group whose driver pins no pages the kernel only ever says that everything mapped is
 * dirty. An answer that says so makes this source one that is always dirty: its pages are sent at
 * first and in the last round, not in each. It goes on asking, and the first answer that says less
 * makes everything dirty once more and counts from then on.
 *
 * <p>A container that offers no tracking, or only of pages larger than the host's, is always dirty.
 *
 * <p>Cost of a sync: a call per gap-free run, or per as much of it as the kernel's largest bitmap
 * covers, and one pass over its bits. No allocation, unless the scratch plane grows.
 */
public final class Type1Source extends DmaSource {
  private final VfioContainer container;
  private final DmaSpace space;
  private final DmaRuns runs = new DmaRuns();
  private final DmaCursor cursor = new DmaCursor();

  /** Pages that the kernel's largest bitmap covers; 0 if it does not track. */
  private final long mostPages;

  private boolean tracking;

  /** Whether the last answers said that everything is dirty. */
  private boolean saysEverything;

  /**
   * @param container the container, borrowed, with its IOMMU set and nothing mapped that is not in
   *     the ledger
   * @param map its ledger, of this source alone
   */
  public Type1Source(VfioContainer container, DmaMap map) {
    this(
        container,
        map,
        container
            .info()
            .migration()
            .filter(migration -> migration.pageSize() == Pages.SIZE)
            .map(migration -> migration.maxDirtyBitmapSize() << 3)
            .orElse(0L));
  }

  /** As said, with a limit of its own instead of the container's. */
  Type1Source(VfioContainer container, DmaMap map, long mostPages) {
    super(map, UnmapPolicy.QUERY);
    this.container = container;
    space = DmaSpace.of(container);
    this.mostPages = mostPages;
  }

  @Override
  public String name() {
    return "type1";
  }

  /** Whether the container offers tracking of the host's pages. */
  public boolean canTrack() {
    return mostPages > 0;
  }

  @Override
  public void start() {
    map.lock();
    try {
      if (canTrack()) {
        container.setDirtyTracking(true);
        tracking = true;
        saysEverything = false;
      }
      started = true;
    } finally {
      map.unlock();
    }
  }

  @Override
  public void stop() {
    map.lock();
    try {
      started = false;
      if (tracking) {
        tracking = false;
        container.setDirtyTracking(false);
      }
    } finally {
      map.unlock();
    }
  }

  @Override
  void ask() {
    try {
      if (!tracking) {
        return;
      }
      boolean everything = true;
      boolean asked = false;
      runs.reset(map, DmaRuns.Kind.SPANNING);
      while (runs.next()) {
        long end = runs.iovaPage() + runs.pages();
        for (long at = runs.iovaPage(); at < end; ) {
          long pages = part(at, end);
          everything &= ask(at, pages);
          asked = true;
          at += pages;
        }
      }
      saysEverything = asked && everything;
    } catch (Throwable e) {
      // What earlier answers said and was left out is marked with the rest.
      saysEverything = false;
      throw e;
    }
  }

  /**
   * Asks for a gap-free range.
   *
   * @return whether all of it is dirty
   */
  private boolean ask(long iovaPage, long pages) {
    long bit = scratch.reserve(pages);
    boolean merged = false;
    try {
      container.getDirtyBitmap(
          iovaPage << Pages.SHIFT, pages << Pages.SHIFT, Pages.SIZE, scratch.segment());
      boolean full = scratch.isFull(bit, pages);
      if (saysEverything && !full) {
        saysEverything = false;
        map.markWritable();
      }
      count(iovaPage, saysEverything ? DmaScratch.words(pages) : 0);
      if (!saysEverything) {
        merged = true;
        scratch.merge(map, iovaPage, pages, bit);
      }
      return full;
    } finally {
      if (!merged) {
        scratch.clear(bit, pages);
      }
    }
  }

  private void count(long iovaPage, long words) {
    cursor.resetPages(map, iovaPage, iovaPage + 1);
    if (cursor.next()) {
      try (FillPlane fill = cursor.log().fill()) {
        fill.countQuery();
        fill.countWords(words);
      }
    }
  }

  @Override
  void mapInKernel(long iova, long address, long bytes, boolean writable) {
    space.map(iova, address, bytes, writable);
  }

  @Override
  long unmapInKernel(long iova, long bytes) {
    return space.unmap(iova, bytes);
  }

  @Override
  boolean isAlwaysDirty() {
    return !tracking || saysEverything;
  }

  @Override
  long mostPages() {
    return canTrack() ? mostPages : Long.MAX_VALUE;
  }

  @Override
  AskAt askAt() {
    return AskAt.WITH_UNMAP;
  }

  @Override
  void queryForUnmap(long iova, long bytes, long bit) {
    throw new UnsupportedOperationException("type1 unmaps and tells in one call");
  }

  @Override
  long unmapAndQuery(long iova, long bytes) {
    return container.unmapDma(iova, bytes, Pages.SIZE, unmapScratch.segment());
  }
}
