package dev.tidemark.ffm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.vfio.DmaRange;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/**
 * A kernel that has none of the calls: like {@code /dev/null}, it answers each with {@code ENOTTY}.
 */
class OldKernelTest {
  private final Fd none = Fd.open("/dev/null", Fd.O_RDWR);
  private final int number = none.acquire();
  private final Mapping bitmap = Mapping.guarded(64);

  @AfterEach
  void close() {
    bitmap.close();
    none.release();
    none.close();
  }

  private static String refused(Runnable call) {
    LinuxException refused = assertThrows(LinuxException.class, call::run);
    assertEquals(Errno.ENOTTY, refused.errno(), refused.getMessage());
    assertTrue(refused.getMessage().contains("ENOTTY"), refused.getMessage());
    return refused.getMessage();
  }

  private static void says(String part, String message) {
    assertTrue(message.contains(part), message);
  }

  @Test
  void iommufdSaysWhatItNeeds() {
    Iommufd old = Iommufd.borrow(number);
    assertFalse(old.hasDirtyTracking());
    assertFalse(old.hasMapFile());
    says("IOMMU_IOAS_ALLOC", refused(old::allocIoas));
    Ioas ioas = old.borrowIoas(3);
    says(
        "needs Linux 6.6, with dirty tracking 6.7",
        refused(() -> old.allocHwpt(1, ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING)));
    Hwpt table = old.borrowHwpt(4);
    says("IOMMU_HWPT_SET_DIRTY_TRACKING", refused(() -> table.setDirtyTracking(true)));
    for (int flags : new int[] {0, IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR}) {
      says(
          "IOMMU_HWPT_GET_DIRTY_BITMAP",
          refused(() -> table.getDirtyBitmap(0, 4096, 4096, flags, bitmap.segment())));
    }
    int access = IommufdUapi.IOMMU_IOAS_MAP_READABLE;
    says("IOMMU_IOAS_MAP", refused(() -> ioas.mapFixed(0, 4096, 4096, access)));
    says("IOMMU_IOAS_UNMAP", refused(() -> ioas.unmap(0, 4096)));
  }

  @Test
  void aDeviceHasNoFeatures() {
    VfioDevice old = VfioDevice.borrow(number);
    assertEquals(0, old.migrationFlags());
    assertFalse(old.probeFeature(VfioUapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START));
    says("cannot migrate", refused(old::migDeviceState));
    List<DmaRange> ranges = List.of(new DmaRange(0, 4096));
    says("cannot log", refused(() -> old.dmaLoggingStart(4096, ranges)));
    says("cannot log", refused(() -> old.dmaLoggingReport(0, 4096, 4096, bitmap.segment())));
    try (Iommufd iommufd = Iommufd.borrow(number)) {
      says("VFIO_DEVICE_BIND_IOMMUFD", refused(() -> old.bindIommufd(iommufd)));
    }
  }

  @Test
  void aContainerCannotTrack() {
    VfioContainer old = VfioContainer.borrow(number);
    refused(old::apiVersion);
    refused(old::info);
    says("VFIO_IOMMU_DIRTY_PAGES", refused(() -> old.setDirtyTracking(true)));
    says("VFIO_IOMMU_UNMAP_DMA", refused(() -> old.unmapDma(0, 4096, 4096, bitmap.segment())));
  }
}
