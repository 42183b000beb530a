package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.ffm.Ioctl;
import java.lang.foreign.StructLayout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Numbers and sizes as a C program with the headers of Linux 6.12 prints them. */
class VfioUapiTest {
  static Arguments[] requests() {
    return new Arguments[] {
      Arguments.of(VFIO_GET_API_VERSION, 0x3b64),
      Arguments.of(VFIO_CHECK_EXTENSION, 0x3b65),
      Arguments.of(VFIO_SET_IOMMU, 0x3b66),
      Arguments.of(VFIO_GROUP_GET_STATUS, 0x3b67),
      Arguments.of(VFIO_GROUP_SET_CONTAINER, 0x3b68),
      Arguments.of(VFIO_GROUP_UNSET_CONTAINER, 0x3b69),
      Arguments.of(VFIO_GROUP_GET_DEVICE_FD, 0x3b6a),
      Arguments.of(VFIO_DEVICE_GET_INFO, 0x3b6b),
      Arguments.of(VFIO_DEVICE_RESET, 0x3b6f),
      Arguments.of(VFIO_IOMMU_GET_INFO, 0x3b70),
      Arguments.of(VFIO_IOMMU_MAP_DMA, 0x3b71),
      Arguments.of(VFIO_IOMMU_UNMAP_DMA, 0x3b72),
      Arguments.of(VFIO_IOMMU_DIRTY_PAGES, 0x3b75),
      Arguments.of(VFIO_DEVICE_FEATURE, 0x3b75),
      Arguments.of(VFIO_DEVICE_BIND_IOMMUFD, 0x3b76),
      Arguments.of(VFIO_DEVICE_ATTACH_IOMMUFD_PT, 0x3b77),
      Arguments.of(VFIO_DEVICE_DETACH_IOMMUFD_PT, 0x3b78),
      Arguments.of(VFIO_MIG_GET_PRECOPY_INFO, 0x3b79)
    };
  }

  @ParameterizedTest
  @MethodSource("requests")
  void numbersAreTheKernels(Ioctl.Request request, int number) {
    assertEquals(number, request.code());
  }

  static Arguments[] layouts() {
    return new Arguments[] {
      Arguments.of(VFIO_DEVICE_BIND_IOMMUFD_LAYOUT, 16),
      Arguments.of(VFIO_DEVICE_ATTACH_IOMMUFD_PT_LAYOUT, 12),
      Arguments.of(VFIO_DEVICE_DETACH_IOMMUFD_PT_LAYOUT, 8),
      Arguments.of(VFIO_DEVICE_INFO_LAYOUT, 24),
      Arguments.of(VFIO_DEVICE_FEATURE_LAYOUT, 8),
      Arguments.of(VFIO_DEVICE_FEATURE_MIG_STATE_LAYOUT, 8),
      Arguments.of(VFIO_DEVICE_FEATURE_DMA_LOGGING_CONTROL_LAYOUT, 24),
      Arguments.of(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT_LAYOUT, 32),
      Arguments.of(VFIO_PRECOPY_INFO_LAYOUT, 24),
      Arguments.of(VFIO_IOMMU_TYPE1_INFO_LAYOUT, 24),
      Arguments.of(VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION_LAYOUT, 32),
      Arguments.of(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE_LAYOUT, 16),
      Arguments.of(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL_LAYOUT, 12),
      Arguments.of(VFIO_IOMMU_TYPE1_DMA_MAP_LAYOUT, 32),
      Arguments.of(VFIO_IOMMU_TYPE1_DMA_UNMAP_LAYOUT, 24),
      Arguments.of(VFIO_BITMAP_LAYOUT, 24),
      Arguments.of(VFIO_IOMMU_TYPE1_DIRTY_BITMAP_LAYOUT, 8),
      Arguments.of(VFIO_IOMMU_TYPE1_DIRTY_BITMAP_GET_LAYOUT, 40)
    };
  }

  @ParameterizedTest
  @MethodSource("layouts")
  void sizesAreTheKernels(StructLayout layout, long size) {
    assertEquals(size, layout.byteSize());
  }
}
