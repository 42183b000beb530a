package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_IOAS_MAP_READABLE;
import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_IOAS_MAP_WRITEABLE;

import dev.tidemark.ffm.lab.MockIommu;

/** An address space with a mock device, on an iommufd of its own. */
class LabIommu implements AutoCloseable {
  static final int ACCESS = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
  static final long START = MockIommu.MOCK_APERTURE_START;
  static final long IO_PAGE = MockIommu.IO_PAGE_SIZE;

  final Iommufd iommufd = Iommufd.open();
  final MockIommu mock = new MockIommu(iommufd);
  final Ioas ioas = iommufd.allocIoas();
  final MockIommu.Device device;

  LabIommu(int deviceFlags) {
    device = mock.addDevice(ioas, deviceFlags);
  }

  /** A page table that can track, of an address space. */
  Hwpt tracking(Ioas of) {
    return iommufd.allocHwpt(device.deviceId(), of, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
  }

  @Override
  public void close() {
    iommufd.close();
  }
}
