package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.*;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.ffm.Ioctl;
import java.lang.foreign.StructLayout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Numbers and sizes as a C program with the headers of Linux 6.12 prints them. */
class IommufdUapiTest {
  static Arguments[] requests() {
    return new Arguments[] {
      Arguments.of(IOMMU_DESTROY, 0x3b80, IOMMU_DESTROY_LAYOUT, 8),
      Arguments.of(IOMMU_IOAS_ALLOC, 0x3b81, IOMMU_IOAS_ALLOC_LAYOUT, 12),
      Arguments.of(IOMMU_IOAS_ALLOW_IOVAS, 0x3b82, IOMMU_IOAS_ALLOW_IOVAS_LAYOUT, 24),
      Arguments.of(IOMMU_IOAS_COPY, 0x3b83, IOMMU_IOAS_COPY_LAYOUT, 40),
      Arguments.of(IOMMU_IOAS_IOVA_RANGES, 0x3b84, IOMMU_IOAS_IOVA_RANGES_LAYOUT, 32),
      Arguments.of(IOMMU_IOAS_MAP, 0x3b85, IOMMU_IOAS_MAP_LAYOUT, 40),
      Arguments.of(IOMMU_IOAS_UNMAP, 0x3b86, IOMMU_IOAS_UNMAP_LAYOUT, 24),
      Arguments.of(IOMMU_OPTION, 0x3b87, IOMMU_OPTION_LAYOUT, 24),
      Arguments.of(IOMMU_VFIO_IOAS, 0x3b88, IOMMU_VFIO_IOAS_LAYOUT, 12),
      Arguments.of(IOMMU_HWPT_ALLOC, 0x3b89, IOMMU_HWPT_ALLOC_LAYOUT, 48),
      Arguments.of(IOMMU_GET_HW_INFO, 0x3b8a, IOMMU_HW_INFO_LAYOUT, 40),
      Arguments.of(IOMMU_HWPT_SET_DIRTY_TRACKING, 0x3b8b, IOMMU_HWPT_SET_DIRTY_TRACKING_LAYOUT, 16),
      Arguments.of(IOMMU_HWPT_GET_DIRTY_BITMAP, 0x3b8c, IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, 48),
      Arguments.of(IOMMU_IOAS_MAP_FILE, 0x3b8f, IOMMU_IOAS_MAP_FILE_LAYOUT, 40)
    };
  }

  @ParameterizedTest
  @MethodSource("requests")
  void numbersAndSizesAreTheKernels(
      Ioctl.Request request, int number, StructLayout layout, long size) {
    assertEquals(number, request.code());
    assertEquals(size, layout.byteSize());
  }
}
