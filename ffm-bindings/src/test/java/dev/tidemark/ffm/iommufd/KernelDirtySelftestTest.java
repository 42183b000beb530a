package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.lab.LabMemory;
import dev.tidemark.ffm.lab.MockIommu;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * What {@code tools/testing/selftests/iommu/iommufd.c} checks in its fixture {@code
 * iommufd_dirty_tracking}, test by test and variant by variant, through the owners.
 */
@Tag("lab-mock")
class KernelDirtySelftestTest {
  enum Variant {
    DIRTY_8K(8L << 10, false),
    DIRTY_16K(16L << 10, false),
    DIRTY_64K(64L << 10, false),
    DIRTY_128K(128L << 10, false),
    DIRTY_320K(320L << 10, false),
    DIRTY_64M(64L << 20, false),
    DIRTY_64M_HUGE(64L << 20, true),
    DIRTY_128M(128L << 20, false),
    DIRTY_128M_HUGE(128L << 20, true);

    final long bytes;
    final boolean huge;

    Variant(long bytes, boolean huge) {
      this.bytes = bytes;
      this.huge = huge;
    }

    LabIommu iommu() {
      return new LabIommu(huge ? MockIommu.MOCK_FLAGS_DEVICE_HUGE_IOVA : 0);
    }

    LabMemory buffer() {
      return huge ? LabMemory.huge(bytes) : LabMemory.shared(bytes);
    }
  }

  @ParameterizedTest
  @EnumSource
  void enforceDirty(Variant variant) {
    try (LabIommu lab = variant.iommu()) {
      try (Hwpt hwpt = lab.tracking(lab.ioas)) {
        MockIommu.Device second = lab.mock.addDevice(hwpt, 0);
        LinuxException refused =
            assertThrows(
                LinuxException.class,
                () -> lab.mock.addDevice(hwpt, MockIommu.MOCK_FLAGS_DEVICE_NO_DIRTY));
        assertEquals(Errno.EINVAL, refused.errno());
        lab.mock.removeDevice(second);
      }
      try (Ioas other = lab.iommufd.allocIoas()) {
        MockIommu.Device unable = lab.mock.addDevice(other, MockIommu.MOCK_FLAGS_DEVICE_NO_DIRTY);
        LinuxException refused =
            assertThrows(
                LinuxException.class,
                () ->
                    lab.iommufd.allocHwpt(
                        unable.deviceId(), other, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
        assertEquals(Errno.EOPNOTSUPP, refused.errno());
        assertFalse(lab.iommufd.getHwInfo(unable.deviceId()).hasDirtyTracking());
        lab.mock.removeDevice(unable);
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void setDirtyTracking(Variant variant) {
    try (LabIommu lab = variant.iommu();
        Hwpt hwpt = lab.tracking(lab.ioas)) {
      MockIommu.Device second = lab.mock.addDevice(hwpt, 0);
      hwpt.setDirtyTracking(true);
      hwpt.setDirtyTracking(false);
      lab.mock.removeDevice(second);
    }
  }

  @ParameterizedTest
  @EnumSource
  void deviceDirtyCapability(Variant variant) {
    try (LabIommu lab = variant.iommu();
        Hwpt hwpt = lab.iommufd.allocHwpt(lab.device.deviceId(), lab.ioas, 0)) {
      MockIommu.Device second = lab.mock.addDevice(hwpt, 0);
      assertTrue(lab.iommufd.getHwInfo(lab.device.deviceId()).hasDirtyTracking());
      lab.mock.removeDevice(second);
    }
  }

  @ParameterizedTest
  @EnumSource
  void getDirtyBitmap(Variant variant) {
    query(variant, 0);
  }

  @ParameterizedTest
  @EnumSource
  void getDirtyBitmapNoClear(Variant variant) {
    query(variant, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR);
  }

  private static void query(Variant variant, int flags) {
    int bits = (int) (variant.bytes / LabIommu.IO_PAGE);
    int bytes = (bits + 7) / 8;
    int entry = variant.huge ? (int) (MockIommu.HUGE_PAGE_SIZE / LabIommu.IO_PAGE) : 1;
    byte[] marks = new byte[bytes];
    byte[] expected = new byte[bytes];
    int marked = 0;
    for (int first = 0; first < bits; first += 2 * entry) {
      marks[first / 8] |= (byte) (1 << first % 8);
      marked++;
      for (int bit = first; bit < first + entry; bit++) {
        expected[bit / 8] |= (byte) (1 << bit % 8);
      }
    }
    try (LabIommu lab = variant.iommu();
        LabMemory buffer = variant.buffer();
        Mapping bitmaps = Mapping.anonymous(bytes + Pages.SIZE);
        Mapping write = Mapping.anonymous(bytes);
        Ioas ioas = lab.iommufd.allocIoas()) {
      ioas.mapFixed(LabIommu.START, buffer.address(), variant.bytes, LabIommu.ACCESS);
      try (Hwpt hwpt = lab.tracking(ioas)) {
        hwpt.setDirtyTracking(true);
        MemorySegment.copy(marks, 0, write.segment(), JAVA_BYTE, 0, bytes);
        // At a page's start; not at a page's start; not at a word's start.
        for (long offset : new long[] {0, LabIommu.IO_PAGE, 0xff1}) {
          MemorySegment bitmap = bitmaps.segment().asSlice(offset, bytes);
          long dirty = lab.mock.dirty(hwpt, LabIommu.START, variant.bytes, write.segment());
          assertEquals(marked, dirty);

          bitmap.fill((byte) 0);
          hwpt.getDirtyBitmap(LabIommu.START, variant.bytes, LabIommu.IO_PAGE, flags, bitmap);
          assertArrayEquals(expected, bitmap.toArray(JAVA_BYTE), "offset " + offset);

          bitmap.fill((byte) 0);
          hwpt.getDirtyBitmap(LabIommu.START, variant.bytes, LabIommu.IO_PAGE, flags, bitmap);
          assertArrayEquals(
              flags == 0 ? new byte[bytes] : expected,
              bitmap.toArray(JAVA_BYTE),
              "again, offset " + offset);
        }
      }
    }
  }
}
