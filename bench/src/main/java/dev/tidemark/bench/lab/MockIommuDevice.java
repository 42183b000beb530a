package dev.tidemark.bench.lab;

import dev.tidemark.engine.source.dma.DmaMap;
import dev.tidemark.engine.source.dma.DmaSource;
import dev.tidemark.engine.source.dma.HwptSource;
import dev.tidemark.engine.source.dma.UnmapPolicy;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.MockIommu;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/**
 * Two mock devices in one IOMMUFD address space, each behind a page table of its own that tracks
 * what it wrote: one writes the even pages, the other the odd ones.
 */
final class MockIommuDevice implements LabDevice {
  private static final int TABLES = 2;

  private final Iommufd iommufd = Iommufd.open();
  private final MockIommu mock = new MockIommu(iommufd);
  private final List<Hwpt> tables = new ArrayList<>();
  private MockIommu.Access access;
  private HwptSource source;

  MockIommuDevice() {
    try {
      Ioas ioas = iommufd.allocIoas();
      source = new HwptSource(ioas, new DmaMap(), UnmapPolicy.QUERY);
      for (int i = 0; i < TABLES; i++) {
        MockIommu.Device device = mock.addDevice(ioas, 0);
        Hwpt table =
            iommufd.allocHwpt(device.deviceId(), ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
        tables.add(table);
        mock.replace(device, table);
        source.add(table);
      }
      access = mock.access(ioas);
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  @Override
  public void write(long iova, MemorySegment bytes) {
    access.write(iova, bytes);
    // The mock writes and marks in two steps; an IOMMU marks no later than the data is there.
    try {
      mock.dirty(tables.get((int) (iova >>> Pages.SHIFT) % TABLES), iova);
    } catch (LinuxException e) {
      if (e.errno() != Errno.EINVAL) {
        throw e;
      }
      // Its tracking was off: whoever turns it on counts everything as dirty.
    }
  }

  @Override
  public DmaSource source() {
    return source;
  }

  @Override
  public long firstIova() {
    return MockIommu.MOCK_APERTURE_START;
  }

  @Override
  public long iovaBytes() {
    return MockIommu.MOCK_APERTURE_LAST + 1 - MockIommu.MOCK_APERTURE_START;
  }

  @Override
  public void close() {
    if (access != null) {
      access.close();
    }
    // The page tables and the devices go with it.
    iommufd.close();
  }
}
