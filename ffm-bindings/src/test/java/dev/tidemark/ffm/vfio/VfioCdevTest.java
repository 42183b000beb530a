package dev.tidemark.ffm.vfio;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.LabDevices;
import java.io.IOException;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The PCI device by its character device: VT-d without dirty tracking. */
@Tag("lab-vtd")
class VfioCdevTest {
  private static void refused(int errno, Runnable call) {
    assertEquals(errno, assertThrows(LinuxException.class, call::run).errno());
  }

  @Test
  void nothingWorksBeforeTheBind() throws IOException {
    try (Iommufd iommufd = Iommufd.open();
        VfioDevice device = VfioDevice.open(LabDevices.pci().cdev())) {
      refused(Errno.EINVAL, device::info);
      refused(Errno.EINVAL, device::migrationFlags);
      device.bindIommufd(iommufd);
      assertTrue((device.info().flags() & VfioUapi.VFIO_DEVICE_FLAGS_PCI) != 0);
      refused(Errno.EINVAL, () -> device.bindIommufd(iommufd));
    }
  }

  @Test
  void somethingElseThanAnIommufdIsRefused() throws IOException {
    try (VfioDevice device = VfioDevice.open(LabDevices.pci().cdev());
        Fd zero = Fd.open("/dev/zero", Fd.O_RDWR);
        Iommufd wrong = Iommufd.borrow(zero.acquire())) {
      refused(Errno.EBADFD, () -> device.bindIommufd(wrong));
      zero.release();
    }
  }

  @Test
  void itAttachesMovesAndDetaches() throws IOException {
    try (Iommufd iommufd = Iommufd.open();
        VfioDevice device = VfioDevice.open(LabDevices.pci().cdev())) {
      int id = device.bindIommufd(iommufd);
      Ioas ioas = iommufd.allocIoas();
      int automatic = device.attach(ioas);
      assertNotEquals(ioas.id(), automatic);
      refused(Errno.EBUSY, ioas::close);
      assertThrows(ClosedException.class, () -> device.attach(ioas));
      Ioas second = iommufd.allocIoas();
      Hwpt hwpt = iommufd.allocHwpt(id, second, 0);
      assertEquals(hwpt.id(), device.attach(hwpt));
      // The automatic page table went with its last device, so nothing holds the address space.
      ioas.close();
      device.detach();
      hwpt.close();
      second.close();
    }
  }

  @Test
  void anIommuThatCannotTrackSaysSo() throws IOException {
    try (Iommufd iommufd = Iommufd.open();
        VfioDevice device = VfioDevice.open(LabDevices.pci().cdev())) {
      int id = device.bindIommufd(iommufd);
      Iommufd.HwInfo info = iommufd.getHwInfo(id);
      assertEquals(IommufdUapi.IOMMU_HW_INFO_TYPE_INTEL_VTD, info.type());
      assertFalse(info.hasDirtyTracking());
      try (Ioas ioas = iommufd.allocIoas()) {
        refused(
            Errno.EOPNOTSUPP,
            () -> iommufd.allocHwpt(id, ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
        int automatic = device.attach(ioas);
        refused(Errno.EOPNOTSUPP, () -> iommufd.borrowHwpt(automatic).setDirtyTracking(true));
        device.detach();
      }
    }
  }

  @Test
  void aDeviceThatCannotMigrateOrLogSaysSo() throws IOException {
    try (Iommufd iommufd = Iommufd.open();
        VfioDevice device = VfioDevice.open(LabDevices.pci().cdev())) {
      device.bindIommufd(iommufd);
      assertEquals(0, device.migrationFlags());
      assertFalse(device.probeFeature(VfioUapi.VFIO_DEVICE_FEATURE_MIGRATION));
      assertFalse(device.probeFeature(VfioUapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START));
      refused(Errno.ENOTTY, () -> device.dmaLoggingStart(4096, List.of(new DmaRange(0, 4096))));
      refused(Errno.ENOTTY, device::migDataSize);
    }
  }
}
