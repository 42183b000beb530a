package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_IOAS_MAP_READABLE;
import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_IOAS_MAP_WRITEABLE;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.BitSet;
import java.util.List;

/** A device of our own with 4 MiB that it can write. */
final class DmaLab implements AutoCloseable {
  static final long PAGE = 4096;
  static final int PAGES = 1024;
  static final long BASE = 1L << 24;
  static final long BYTES = PAGES * PAGE;
  static final int ACCESS = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;

  final Iommufd iommufd = Iommufd.open();
  final Ioas ioas = iommufd.allocIoas();
  final Mapping memory = Mapping.anonymous(BYTES);
  final Mapping bitmap = Mapping.guarded(PAGES / 8);
  final DmaDevice device;
  final VfioDevice vfio;

  DmaLab(int number) {
    device = DmaDevice.open(number, iommufd);
    vfio = device.vfio();
    map();
    vfio.attach(ioas);
  }

  void map() {
    ioas.mapFixed(BASE, memory.segment().address(), BYTES, ACCESS);
  }

  static DmaRange range(long page, long pages) {
    return new DmaRange(at(page), pages * PAGE);
  }

  static long at(long page) {
    return BASE + page * PAGE;
  }

  /** Starts to log everything, page by page. */
  void start() {
    assertEquals(PAGE, vfio.dmaLoggingStart(PAGE, List.of(range(0, PAGES))));
  }

  void write(long... pages) {
    for (long page : pages) {
      device.write(at(page), page);
    }
  }

  /** The pages that a report adds to an empty bitmap. */
  BitSet report(long page, long pages) {
    return report(at(page), pages * PAGE, PAGE);
  }

  BitSet report() {
    return report(0, PAGES);
  }

  BitSet report(long iova, long length, long pageSize) {
    bitmap.segment().fill((byte) 0);
    vfio.dmaLoggingReport(iova, length, pageSize, bitmap.segment());
    return bits(bitmap.segment());
  }

  static BitSet bits(MemorySegment bitmap) {
    return BitSet.valueOf(bitmap.toArray(JAVA_BYTE));
  }

  /** The pages that the device itself says it wrote. */
  BitSet written() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment record = arena.allocate(PAGES / 8);
      device.written(BASE, record);
      return bits(record);
    }
  }

  static BitSet pages(int... pages) {
    BitSet set = new BitSet();
    for (int page : pages) {
      set.set(page);
    }
    return set;
  }

  static BitSet allFrom(int from, int to) {
    BitSet set = new BitSet();
    set.set(from, to);
    return set;
  }

  static String refused(int errno, Runnable call) {
    LinuxException refused = assertThrows(LinuxException.class, call::run);
    assertEquals(errno, refused.errno(), refused.getMessage());
    return refused.getMessage();
  }

  static void says(String part, String message) {
    assertTrue(message.contains(part), message);
  }

  @Override
  public void close() {
    device.close();
    iommufd.close();
    memory.close();
    bitmap.close();
  }
}
