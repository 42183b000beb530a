package dev.tidemark.engine.source.dma;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/** A guest with blocks of RAM and devices in one address space that write it and log that. */
final class LogLab implements AutoCloseable {
  static final long PAGE = Pages.SIZE;

  /** The first page of IOVA that is used: in the middle of everything. */
  static final long BASE = 1L << 16;

  final Iommufd iommufd = Iommufd.open();
  final Ioas ioas = iommufd.allocIoas();
  final DmaMap map = new DmaMap();
  final List<DmaDevice> devices = new ArrayList<>();
  final DeviceLogSource source;
  final DirtyTracker tracker;
  private final List<Mapping> memory = new ArrayList<>();

  LogLab(int devices, Runnable settle, long... blockPages) {
    this(DirectAnswers.ALIGNMENT, devices, settle, blockPages);
  }

  /**
   * @param alignment of reports, in pages, as the kernel is said to need it
   */
  LogLab(long alignment, int devices, Runnable settle, long... blockPages) {
    List<RamBlock> blocks = new ArrayList<>();
    for (int i = 0; i < blockPages.length; i++) {
      memory.add(Mapping.anonymous(blockPages[i] * PAGE));
      blocks.add(new RamBlock("ram" + i, memory.get(i).segment()));
    }
    source = new DeviceLogSource(DmaSpace.of(ioas), map, settle, alignment);
    tracker = new DirtyTracker(blocks);
    tracker.add(source);
    tracker.logs().forEach(log -> tracker.coverByMarks(log, 0, log.block().pages()));
    for (int i = 0; i < devices; i++) {
      source.add(open(i).vfio());
    }
  }

  /** A device that is attached, not yet added to the source. */
  DmaDevice open(int number) {
    DmaDevice device = DmaDevice.open(number, iommufd);
    devices.add(device);
    device.vfio().attach(ioas);
    return device;
  }

  RamBlockLog log(int block) {
    return tracker.logs().get(block);
  }

  MemorySegment memory(int block) {
    return memory.get(block).segment();
  }

  /** Maps pages; {@code at} counts pages from {@link #BASE}. */
  void map(long at, long pages, int block, long page, boolean writable) {
    source.map(iova(at), pages * PAGE, log(block), page, writable);
  }

  static long iova(long at) {
    return (BASE + at) * PAGE;
  }

  long unmap(long at, long pages) {
    return source.unmap(iova(at), pages * PAGE) / PAGE;
  }

  /** Has a device write 8 bytes to each of some pages. */
  void write(int device, long... pages) {
    for (long at : pages) {
      devices.get(device).write(iova(at), ~at);
    }
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
    return harvest(block);
  }

  BitSet harvest(int block) {
    tracker.harvest();
    BitSet pages = LabDma.pagesOf(log(block).epoch());
    tracker.commit();
    return pages;
  }

  /** The device's own record of what it wrote, from a multiple of 8 pages on. */
  BitSet written(int device, long at, long pages) {
    return written(devices.get(device), iova(at), pages);
  }

  static BitSet written(DmaDevice device, long iova, long pages) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment record = arena.allocate((pages + 63) / 64 * 8);
      device.written(iova, record);
      BitSet set = BitSet.valueOf(record.toArray(JAVA_BYTE));
      set.clear((int) pages, Math.max((int) pages, set.length()));
      return set;
    }
  }

  static BitSet shifted(BitSet set, int by) {
    BitSet result = new BitSet();
    set.stream().forEach(bit -> result.set(bit + by));
    return result;
  }

  static BitSet range(int from, int to) {
    BitSet set = new BitSet();
    set.set(from, to);
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
      devices.forEach(DmaDevice::close);
      iommufd.close();
      memory.forEach(Mapping::close);
    }
  }
}
