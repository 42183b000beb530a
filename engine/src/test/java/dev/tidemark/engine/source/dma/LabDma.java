package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.Epoch;
import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.LabMemory;
import dev.tidemark.ffm.lab.MockIommu;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/** A guest with blocks of RAM and one IOMMUFD address space with a mock device, in the lab. */
final class LabDma implements AutoCloseable {
  static final long PAGE = Pages.SIZE;

  /** The first page of IOVA that the mock's page tables have. */
  static final long BASE = MockIommu.MOCK_APERTURE_START / PAGE;

  final Iommufd iommufd = Iommufd.open();
  final MockIommu mock = new MockIommu(iommufd);
  final Ioas ioas = iommufd.allocIoas();
  final MockIommu.Device device;
  final DmaMap map = new DmaMap();
  final HwptSource source;
  final DirtyTracker tracker;
  private final List<Hwpt> resources = new ArrayList<>();
  private final List<LabMemory> memory = new ArrayList<>();

  LabDma(UnmapPolicy policy, long... blockPages) {
    this(policy, 0, false, blockPages);
  }

  LabDma(UnmapPolicy policy, int deviceFlags, boolean huge, long... blockPages) {
    this(policy, DirectAnswers.ALIGNMENT, deviceFlags, huge, blockPages);
  }

  /**
   * @param alignment of answers, in pages, as the kernel is said to need it
   */
  LabDma(UnmapPolicy policy, long alignment, int deviceFlags, boolean huge, long... blockPages) {
    device = mock.addDevice(ioas, deviceFlags);
    List<RamBlock> blocks = new ArrayList<>();
    for (int i = 0; i < blockPages.length; i++) {
      LabMemory block =
          huge ? LabMemory.huge(blockPages[i] * PAGE) : LabMemory.shared(blockPages[i] * PAGE);
      memory.add(block);
      blocks.add(new RamBlock("ram" + i, block.segment()));
    }
    source = new HwptSource(DmaSpace.of(ioas), map, policy, alignment);
    tracker = new DirtyTracker(blocks);
    tracker.add(source);
    tracker.logs().forEach(log -> tracker.coverByMarks(log, 0, log.block().pages()));
  }

  /** A page table that tracks, not yet added to the source. */
  Hwpt hwpt() {
    Hwpt hwpt =
        iommufd.allocHwpt(device.deviceId(), ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    resources.add(hwpt);
    return hwpt;
  }

  RamBlockLog log(int block) {
    return tracker.logs().get(block);
  }

  /** Maps pages; {@code at} counts pages from {@link #BASE}. */
  void map(long at, long pages, int block, long page, boolean writable) {
    source.map((BASE + at) * PAGE, pages * PAGE, log(block), page, writable);
  }

  long unmap(long at, long pages) {
    return source.unmap((BASE + at) * PAGE, pages * PAGE) / PAGE;
  }

  /** A device's write, as far as its page table goes. */
  boolean write(Hwpt hwpt, long at) {
    return mock.dirty(hwpt, (BASE + at) * PAGE);
  }

  /** Starts tracking and forgets that everything is dirty at first. */
  void start() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
  }

  /** Syncs, harvests and commits. */
  BitSet take(int block) {
    tracker.sync();
    tracker.harvest();
    BitSet pages = pagesOf(log(block).epoch());
    tracker.commit();
    return pages;
  }

  static BitSet pagesOf(Epoch epoch) {
    BitSet pages = new BitSet();
    RunCursor runs = epoch.runs();
    for (int found = runs.batch(); found > 0; found = runs.batch()) {
      for (int run = 0; run < found; run++) {
        pages.set((int) runs.start(run), (int) (runs.start(run) + runs.length(run)));
      }
    }
    return pages;
  }

  static BitSet set(int... pages) {
    BitSet set = new BitSet();
    for (int page : pages) {
      set.set(page);
    }
    return set;
  }

  LogCounters counters(int block) {
    return log(block).counters();
  }

  @Override
  public void close() {
    try {
      tracker.close();
    } finally {
      for (Hwpt resource : resources.reversed()) {
        resource.close();
      }
      iommufd.close();
      for (LabMemory block : memory) {
        block.close();
      }
    }
  }
}
