package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * What the devices of an IOMMUFD address space wrote, from all its page tables that track ({@code
 * IOMMU_HWPT_GET_DIRTY_BITMAP}).
 *
 * <p>The kernel ORs its answer into the log's fill plane itself where a gap-free run of IOVA is
 * contiguous in its block and begins at a multiple of 8 pages there, of 64 on kernels before 6.8.
 * Else it goes through a scratch plane: one call for as many mappings as follow each other without
 * a hole, then a merge by mapping that has bits. Every call begins and ends where a mapping does:
 * entries of a page table never cross that, so no bit falls outside.
 *
 * <p>If one page table, or a device without one, cannot track, all writable pages of the address
 * space count as dirty for as long as it is there: it writes the same memory.
 *
 * <p>Cost of a sync: one call per page table and run, plus one per piece of at least 512 pages that
 * is contiguous in a block; scratch answers cost one pass over their bits. No allocation, unless a
 * scratch plane grows.
 */
public final class HwptSource extends DmaSource {
  /** A piece of a run that is at least so long, in pages, gets a call of its own. */
  private static final long DIRECT_PAGES = 512;

  private static final int NO_CLEAR = IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;

  private final DmaSpace space;

  /**
   * A piece whose place in its block is a multiple of this, in pages, can be asked for directly.
   */
  private final long alignment;

  private final DmaRuns runs = new DmaRuns();
  private final List<String> untracked = new ArrayList<>();
  private Hwpt[] hwpts = {};

  /** Whether the page tables are on. */
  private boolean tracking;

  /**
   * A source whose unmaps miss nothing, whatever the devices do ({@link UnmapPolicy#STRICT}).
   *
   * @param ioas the address space, borrowed; nothing mapped that is not in the ledger
   * @param map its ledger, of this source alone
   */
  public HwptSource(Ioas ioas, DmaMap map) {
    this(ioas, map, UnmapPolicy.STRICT);
  }

  /**
   * @param ioas the address space, borrowed; nothing mapped that is not in the ledger
   * @param map its ledger, of this source alone
   * @param policy what an unmap does: {@link UnmapPolicy#QUERY} only if no device writes to what is
   *     about to be unmapped
   */
  public HwptSource(Ioas ioas, DmaMap map, UnmapPolicy policy) {
    this(DmaSpace.of(ioas), map, policy);
  }

  /** As said, with something between it and the kernel. */
  HwptSource(DmaSpace space, DmaMap map, UnmapPolicy policy) {
    this(space, map, policy, DirectAnswers.ALIGNMENT);
  }

  /** As said, on a kernel that needs answers to begin at a multiple of so many pages. */
  HwptSource(DmaSpace space, DmaMap map, UnmapPolicy policy, long alignment) {
    super(map, policy);
    this.space = space;
    this.alignment = alignment;
  }

  @Override
  public String name() {
    return "iommufd";
  }

  /**
   * Adds a page table that was made with dirty tracking, borrowed, before or after a device is
   * attached to it. While tracking is on it is enabled at once, and everything that its devices may
   * have written counts as dirty. If it cannot be enabled, it counts as one that cannot track.
   */
  public void add(Hwpt hwpt) {
    map.lock();
    try {
      hwpts = Arrays.copyOf(hwpts, hwpts.length + 1);
      hwpts[hwpts.length - 1] = hwpt;
      if (tracking) {
        try {
          hwpt.setDirtyTracking(true);
        } catch (Throwable e) {
          hwpts = Arrays.copyOf(hwpts, hwpts.length - 1);
          addUntracked(hwpt.toString());
          if (e instanceof Error error) {
            throw error;
          }
          return;
        }
      }
      if (started) {
        map.markWritable();
      }
    } finally {
      map.unlock();
    }
  }

  /**
   * Takes a page table out, after its last device was detached from it and before it is closed: its
   * last bits reach the log. If it cannot be asked any more, all that its devices may have written
   * counts as dirty.
   *
   * @throws IllegalArgumentException if it is not here
   */
  public void remove(Hwpt hwpt) {
    map.lock();
    try {
      int at = Arrays.asList(hwpts).indexOf(hwpt);
      if (at < 0) {
        throw new IllegalArgumentException(hwpt + " was not added");
      }
      Hwpt[] rest = new Hwpt[hwpts.length - 1];
      System.arraycopy(hwpts, 0, rest, 0, at);
      System.arraycopy(hwpts, at + 1, rest, at, rest.length - at);
      if (tracking) {
        hwpts = new Hwpt[] {hwpt};
        try {
          ask();
          hwpt.setDirtyTracking(false);
        } catch (Throwable e) {
          map.markWritable();
          if (e instanceof Error error) {
            throw error;
          }
        } finally {
          hwpts = rest;
        }
      } else {
        hwpts = rest;
      }
    } finally {
      map.unlock();
    }
  }

  /**
   * Says that a device writes this address space untracked: its page table was made without dirty
   * tracking, or it has none (a mediated device). From now on every writable page counts as dirty.
   *
   * @param name for {@link #untracked()}
   */
  public void addUntracked(String name) {
    map.lock();
    try {
      untracked.add(name);
      disable();
      if (started) {
        map.markWritable();
      }
    } finally {
      map.unlock();
    }
  }

  /**
   * Says that such a device is gone. With the last one tracking is turned on again, and everything
   * counts as dirty once more.
   *
   * @throws IllegalArgumentException if it is not here
   */
  public void removeUntracked(String name) {
    map.lock();
    try {
      if (!untracked.remove(name)) {
        throw new IllegalArgumentException(name + " was not added");
      }
      if (started && untracked.isEmpty()) {
        try {
          enable();
        } catch (RuntimeException e) {
          untracked.add(e.getMessage());
        } finally {
          map.markWritable();
        }
      }
    } finally {
      map.unlock();
    }
  }

  /** Who makes every writable page count as dirty; empty if all is tracked. */
  public List<String> untracked() {
    map.lock();
    try {
      return List.copyOf(untracked);
    } finally {
      map.unlock();
    }
  }

  @Override
  public void start() {
    map.lock();
    try {
      if (untracked.isEmpty()) {
        enable();
      }
      started = true;
    } finally {
      map.unlock();
    }
  }

  private void enable() {
    int on = 0;
    try {
      for (; on < hwpts.length; on++) {
        hwpts[on].setDirtyTracking(true);
      }
      tracking = true;
    } catch (Throwable e) {
      while (on > 0) {
        Hwpt enabled = hwpts[--on];
        Unwind.attempt(e, () -> enabled.setDirtyTracking(false));
      }
      throw e;
    }
  }

  /** Turns tracking off in all page tables, also if one fails; returns the first failure. */
  private Throwable disable() {
    Throwable failure = null;
    if (tracking) {
      tracking = false;
      for (Hwpt hwpt : hwpts) {
        failure = Unwind.attempt(failure, () -> hwpt.setDirtyTracking(false));
      }
    }
    return failure;
  }

  @Override
  public void stop() {
    map.lock();
    try {
      started = false;
      Unwind.rethrow(disable());
    } finally {
      map.unlock();
    }
  }

  @Override
  void ask() {
    if (!tracking) {
      return;
    }
    runs.reset(map, DmaRuns.Kind.SPANNING);
    while (runs.next()) {
      // Pieces that do not go into a plane directly, collected to be asked for together.
      long scattered = 0;
      long scatteredFrom = 0;
      boolean writable = false;
      while (runs.nextPiece()) {
        long pages = runs.piecePages();
        boolean direct =
            (runs.piecePage() & alignment - 1) == 0
                && (pages == runs.pages() || pages >= DIRECT_PAGES);
        if (direct) {
          if (writable) {
            askScattered(scatteredFrom, scattered);
          }
          scattered = 0;
          writable = false;
          if (runs.pieceWritablePages() > 0) {
            askDirect(runs.pieceIova(), pages, runs.pieceLog(), runs.piecePage());
          }
        } else {
          if (scattered == 0) {
            scatteredFrom = runs.pieceIovaPage();
          }
          scattered += pages;
          writable |= runs.pieceWritablePages() > 0;
        }
      }
      if (writable) {
        askScattered(scatteredFrom, scattered);
      }
    }
  }

  private void askDirect(long iova, long pages, RamBlockLog log, long page) {
    try (FillPlane fill = log.fill()) {
      for (Hwpt hwpt : hwpts) {
        hwpt.getDirtyBitmap(iova, pages << Pages.SHIFT, Pages.SIZE, 0, fill.segment(), page >>> 3);
        fill.countQuery();
      }
    }
  }

  private void askScattered(long iovaPage, long pages) {
    long bit = scratch.place(pages);
    MemorySegment segment = scratch.segment();
    boolean complete = false;
    try {
      for (Hwpt hwpt : hwpts) {
        hwpt.getDirtyBitmap(
            iovaPage << Pages.SHIFT, pages << Pages.SHIFT, Pages.SIZE, 0, segment, bit >>> 3);
        countQuery();
      }
      complete = true;
    } finally {
      if (!complete) {
        scratch.clear(bit, pages);
      }
    }
    scratch.merge(map, iovaPage, pages, bit);
  }

  private void countQuery() {
    try (FillPlane fill = runs.pieceLog().fill()) {
      fill.countQuery();
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
    return !tracking;
  }

  @Override
  long mostPages() {
    return Long.MAX_VALUE;
  }

  @Override
  AskAt askAt() {
    return AskAt.BEFORE_UNMAP;
  }

  @Override
  void queryForUnmap(long iova, long bytes, long bit) {
    for (Hwpt hwpt : hwpts) {
      hwpt.getDirtyBitmap(iova, bytes, Pages.SIZE, NO_CLEAR, unmapScratch.segment(), bit >>> 3);
    }
  }

  @Override
  long unmapAndQuery(long iova, long bytes) {
    throw new UnsupportedOperationException("IOMMUFD has no such call");
  }
}
