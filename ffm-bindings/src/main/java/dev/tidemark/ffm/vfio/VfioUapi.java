package dev.tidemark.ffm.vfio;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.ffm.Ioctl;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.StructLayout;

/** {@code linux/vfio.h}: numbers and structures, with the kernel's names. */
public final class VfioUapi {
  public static final int VFIO_API_VERSION = 0;

  public static final int VFIO_TYPE1_IOMMU = 1;
  public static final int VFIO_TYPE1v2_IOMMU = 3;
  public static final int VFIO_DMA_CC_IOMMU = 4;
  public static final int VFIO_NOIOMMU_IOMMU = 8;
  public static final int VFIO_UNMAP_ALL = 9;
  public static final int VFIO_UPDATE_VADDR = 10;

  public static final int VFIO_GROUP_FLAGS_VIABLE = 1;
  public static final int VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1;

  public static final int VFIO_DEVICE_FLAGS_RESET = 1;
  public static final int VFIO_DEVICE_FLAGS_PCI = 1 << 1;
  public static final int VFIO_DEVICE_FLAGS_CAPS = 1 << 7;

  public static final int VFIO_DEVICE_FEATURE_MASK = 0xffff;
  public static final int VFIO_DEVICE_FEATURE_GET = 1 << 16;
  public static final int VFIO_DEVICE_FEATURE_SET = 1 << 17;
  public static final int VFIO_DEVICE_FEATURE_PROBE = 1 << 18;

  public static final int VFIO_DEVICE_FEATURE_MIGRATION = 1;
  public static final int VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2;
  public static final int VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6;
  public static final int VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7;
  public static final int VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8;
  public static final int VFIO_DEVICE_FEATURE_MIG_DATA_SIZE = 9;

  public static final long VFIO_MIGRATION_STOP_COPY = 1;
  public static final long VFIO_MIGRATION_P2P = 1 << 1;
  public static final long VFIO_MIGRATION_PRE_COPY = 1 << 2;

  public static final int VFIO_DEVICE_STATE_ERROR = 0;
  public static final int VFIO_DEVICE_STATE_STOP = 1;
  public static final int VFIO_DEVICE_STATE_RUNNING = 2;
  public static final int VFIO_DEVICE_STATE_STOP_COPY = 3;
  public static final int VFIO_DEVICE_STATE_RESUMING = 4;
  public static final int VFIO_DEVICE_STATE_RUNNING_P2P = 5;
  public static final int VFIO_DEVICE_STATE_PRE_COPY = 6;
  public static final int VFIO_DEVICE_STATE_PRE_COPY_P2P = 7;

  public static final int VFIO_IOMMU_INFO_PGSIZES = 1;
  public static final int VFIO_IOMMU_INFO_CAPS = 1 << 1;
  public static final int VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
  public static final int VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;
  public static final int VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

  public static final int VFIO_DMA_MAP_FLAG_READ = 1;
  public static final int VFIO_DMA_MAP_FLAG_WRITE = 1 << 1;
  public static final int VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1;
  public static final int VFIO_DMA_UNMAP_FLAG_ALL = 1 << 1;

  public static final int VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1;
  public static final int VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 1 << 1;
  public static final int VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 1 << 2;

  /** {@code struct vfio_device_bind_iommufd}. */
  public static final StructLayout VFIO_DEVICE_BIND_IOMMUFD_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("iommufd"),
              JAVA_INT.withName("out_devid"))
          .withName("vfio_device_bind_iommufd");

  /** {@code struct vfio_device_attach_iommufd_pt}. */
  public static final StructLayout VFIO_DEVICE_ATTACH_IOMMUFD_PT_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"), JAVA_INT.withName("flags"), JAVA_INT.withName("pt_id"))
          .withName("vfio_device_attach_iommufd_pt");

  /** {@code struct vfio_device_detach_iommufd_pt}. */
  public static final StructLayout VFIO_DEVICE_DETACH_IOMMUFD_PT_LAYOUT =
      MemoryLayout.structLayout(JAVA_INT.withName("argsz"), JAVA_INT.withName("flags"))
          .withName("vfio_device_detach_iommufd_pt");

  /** {@code struct vfio_device_info}. */
  public static final StructLayout VFIO_DEVICE_INFO_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("num_regions"),
              JAVA_INT.withName("num_irqs"),
              JAVA_INT.withName("cap_offset"),
              JAVA_INT.withName("pad"))
          .withName("vfio_device_info");

  /** {@code struct vfio_device_feature}, followed by the feature's data. */
  public static final StructLayout VFIO_DEVICE_FEATURE_LAYOUT =
      MemoryLayout.structLayout(JAVA_INT.withName("argsz"), JAVA_INT.withName("flags"))
          .withName("vfio_device_feature");

  /** {@code struct vfio_device_feature_migration}. */
  public static final StructLayout VFIO_DEVICE_FEATURE_MIGRATION_LAYOUT =
      MemoryLayout.structLayout(JAVA_LONG.withName("flags"))
          .withName("vfio_device_feature_migration");

  /** {@code struct vfio_device_feature_mig_state}. */
  public static final StructLayout VFIO_DEVICE_FEATURE_MIG_STATE_LAYOUT =
      MemoryLayout.structLayout(JAVA_INT.withName("device_state"), JAVA_INT.withName("data_fd"))
          .withName("vfio_device_feature_mig_state");

  /** {@code struct vfio_device_feature_dma_logging_control}. */
  public static final StructLayout VFIO_DEVICE_FEATURE_DMA_LOGGING_CONTROL_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("page_size"),
              JAVA_INT.withName("num_ranges"),
              JAVA_INT.withName("__reserved"),
              JAVA_LONG.withName("ranges"))
          .withName("vfio_device_feature_dma_logging_control");

  /** {@code struct vfio_device_feature_dma_logging_range}. */
  public static final StructLayout VFIO_DEVICE_FEATURE_DMA_LOGGING_RANGE_LAYOUT =
      MemoryLayout.structLayout(JAVA_LONG.withName("iova"), JAVA_LONG.withName("length"))
          .withName("vfio_device_feature_dma_logging_range");

  /** {@code struct vfio_device_feature_dma_logging_report}. */
  public static final StructLayout VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("iova"),
              JAVA_LONG.withName("length"),
              JAVA_LONG.withName("page_size"),
              JAVA_LONG.withName("bitmap"))
          .withName("vfio_device_feature_dma_logging_report");

  /** {@code struct vfio_device_feature_mig_data_size}. */
  public static final StructLayout VFIO_DEVICE_FEATURE_MIG_DATA_SIZE_LAYOUT =
      MemoryLayout.structLayout(JAVA_LONG.withName("stop_copy_length"))
          .withName("vfio_device_feature_mig_data_size");

  /** {@code struct vfio_precopy_info}. */
  public static final StructLayout VFIO_PRECOPY_INFO_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"),
              JAVA_INT.withName("flags"),
              JAVA_LONG.withName("initial_bytes"),
              JAVA_LONG.withName("dirty_bytes"))
          .withName("vfio_precopy_info");

  /** {@code struct vfio_group_status}. */
  public static final StructLayout VFIO_GROUP_STATUS_LAYOUT =
      MemoryLayout.structLayout(JAVA_INT.withName("argsz"), JAVA_INT.withName("flags"))
          .withName("vfio_group_status");

  /** {@code struct vfio_info_cap_header}. */
  public static final StructLayout VFIO_INFO_CAP_HEADER_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_SHORT.withName("id"), JAVA_SHORT.withName("version"), JAVA_INT.withName("next"))
          .withName("vfio_info_cap_header");

  /** {@code struct vfio_iommu_type1_info}. */
  public static final StructLayout VFIO_IOMMU_TYPE1_INFO_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"),
              JAVA_INT.withName("flags"),
              JAVA_LONG.withName("iova_pgsizes"),
              JAVA_INT.withName("cap_offset"),
              JAVA_INT.withName("pad"))
          .withName("vfio_iommu_type1_info");

  /** {@code struct vfio_iova_range}. */
  public static final StructLayout VFIO_IOVA_RANGE_LAYOUT =
      MemoryLayout.structLayout(JAVA_LONG.withName("start"), JAVA_LONG.withName("end"))
          .withName("vfio_iova_range");

  /** {@code struct vfio_iommu_type1_info_cap_iova_range}, followed by the ranges. */
  public static final StructLayout VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE_LAYOUT =
      MemoryLayout.structLayout(
              VFIO_INFO_CAP_HEADER_LAYOUT.withName("header"),
              JAVA_INT.withName("nr_iovas"),
              JAVA_INT.withName("reserved"))
          .withName("vfio_iommu_type1_info_cap_iova_range");

  /** {@code struct vfio_iommu_type1_info_cap_migration}. */
  public static final StructLayout VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION_LAYOUT =
      MemoryLayout.structLayout(
              VFIO_INFO_CAP_HEADER_LAYOUT.withName("header"),
              JAVA_INT.withName("flags"),
              MemoryLayout.paddingLayout(4),
              JAVA_LONG.withName("pgsize_bitmap"),
              JAVA_LONG.withName("max_dirty_bitmap_size"))
          .withName("vfio_iommu_type1_info_cap_migration");

  /** {@code struct vfio_iommu_type1_info_dma_avail}. */
  public static final StructLayout VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL_LAYOUT =
      MemoryLayout.structLayout(
              VFIO_INFO_CAP_HEADER_LAYOUT.withName("header"), JAVA_INT.withName("avail"))
          .withName("vfio_iommu_type1_info_dma_avail");

  /** {@code struct vfio_iommu_type1_dma_map}. */
  public static final StructLayout VFIO_IOMMU_TYPE1_DMA_MAP_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"),
              JAVA_INT.withName("flags"),
              JAVA_LONG.withName("vaddr"),
              JAVA_LONG.withName("iova"),
              JAVA_LONG.withName("size"))
          .withName("vfio_iommu_type1_dma_map");

  /** {@code struct vfio_bitmap}. */
  public static final StructLayout VFIO_BITMAP_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("pgsize"), JAVA_LONG.withName("size"), JAVA_LONG.withName("data"))
          .withName("vfio_bitmap");

  /** {@code struct vfio_iommu_type1_dma_unmap}, followed by {@code vfio_bitmap} where asked for. */
  public static final StructLayout VFIO_IOMMU_TYPE1_DMA_UNMAP_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("argsz"),
              JAVA_INT.withName("flags"),
              JAVA_LONG.withName("iova"),
              JAVA_LONG.withName("size"))
          .withName("vfio_iommu_type1_dma_unmap");

  /**
   * {@code struct vfio_iommu_type1_dirty_bitmap}, followed by {@code
   * vfio_iommu_type1_dirty_bitmap_get} where asked for.
   */
  public static final StructLayout VFIO_IOMMU_TYPE1_DIRTY_BITMAP_LAYOUT =
      MemoryLayout.structLayout(JAVA_INT.withName("argsz"), JAVA_INT.withName("flags"))
          .withName("vfio_iommu_type1_dirty_bitmap");

  /** {@code struct vfio_iommu_type1_dirty_bitmap_get}. */
  public static final StructLayout VFIO_IOMMU_TYPE1_DIRTY_BITMAP_GET_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("iova"),
              JAVA_LONG.withName("size"),
              VFIO_BITMAP_LAYOUT.withName("bitmap"))
          .withName("vfio_iommu_type1_dirty_bitmap_get");

  private static final int VFIO_TYPE = ';';
  private static final int VFIO_BASE = 100;

  public static final Ioctl.Request VFIO_GET_API_VERSION =
      Ioctl._IO("VFIO_GET_API_VERSION", VFIO_TYPE, VFIO_BASE + 0);
  public static final Ioctl.Request VFIO_CHECK_EXTENSION =
      Ioctl._IO("VFIO_CHECK_EXTENSION", VFIO_TYPE, VFIO_BASE + 1);
  public static final Ioctl.Request VFIO_SET_IOMMU =
      Ioctl._IO("VFIO_SET_IOMMU", VFIO_TYPE, VFIO_BASE + 2);
  public static final Ioctl.Request VFIO_GROUP_GET_STATUS =
      Ioctl._IO("VFIO_GROUP_GET_STATUS", VFIO_TYPE, VFIO_BASE + 3);
  public static final Ioctl.Request VFIO_GROUP_SET_CONTAINER =
      Ioctl._IO("VFIO_GROUP_SET_CONTAINER", VFIO_TYPE, VFIO_BASE + 4);
  public static final Ioctl.Request VFIO_GROUP_UNSET_CONTAINER =
      Ioctl._IO("VFIO_GROUP_UNSET_CONTAINER", VFIO_TYPE, VFIO_BASE + 5);
  public static final Ioctl.Request VFIO_GROUP_GET_DEVICE_FD =
      Ioctl._IO("VFIO_GROUP_GET_DEVICE_FD", VFIO_TYPE, VFIO_BASE + 6);
  public static final Ioctl.Request VFIO_DEVICE_GET_INFO =
      Ioctl._IO("VFIO_DEVICE_GET_INFO", VFIO_TYPE, VFIO_BASE + 7);
  public static final Ioctl.Request VFIO_DEVICE_RESET =
      Ioctl._IO("VFIO_DEVICE_RESET", VFIO_TYPE, VFIO_BASE + 11);
  public static final Ioctl.Request VFIO_IOMMU_GET_INFO =
      Ioctl._IO("VFIO_IOMMU_GET_INFO", VFIO_TYPE, VFIO_BASE + 12);
  public static final Ioctl.Request VFIO_IOMMU_MAP_DMA =
      Ioctl._IO("VFIO_IOMMU_MAP_DMA", VFIO_TYPE, VFIO_BASE + 13);
  public static final Ioctl.Request VFIO_IOMMU_UNMAP_DMA =
      Ioctl._IO("VFIO_IOMMU_UNMAP_DMA", VFIO_TYPE, VFIO_BASE + 14);

  /** On a container; on a device the same number is {@link #VFIO_DEVICE_FEATURE}. */
  public static final Ioctl.Request VFIO_IOMMU_DIRTY_PAGES =
      Ioctl._IO("VFIO_IOMMU_DIRTY_PAGES", VFIO_TYPE, VFIO_BASE + 17);

  public static final Ioctl.Request VFIO_DEVICE_FEATURE =
      Ioctl._IO("VFIO_DEVICE_FEATURE", VFIO_TYPE, VFIO_BASE + 17);
  public static final Ioctl.Request VFIO_DEVICE_BIND_IOMMUFD =
      Ioctl._IO("VFIO_DEVICE_BIND_IOMMUFD", VFIO_TYPE, VFIO_BASE + 18);
  public static final Ioctl.Request VFIO_DEVICE_ATTACH_IOMMUFD_PT =
      Ioctl._IO("VFIO_DEVICE_ATTACH_IOMMUFD_PT", VFIO_TYPE, VFIO_BASE + 19);
  public static final Ioctl.Request VFIO_DEVICE_DETACH_IOMMUFD_PT =
      Ioctl._IO("VFIO_DEVICE_DETACH_IOMMUFD_PT", VFIO_TYPE, VFIO_BASE + 20);

  /** On the descriptor of a migration. */
  public static final Ioctl.Request VFIO_MIG_GET_PRECOPY_INFO =
      Ioctl._IO("VFIO_MIG_GET_PRECOPY_INFO", VFIO_TYPE, VFIO_BASE + 21);

  private VfioUapi() {}

  static long offset(StructLayout layout, String member) {
    return layout.byteOffset(PathElement.groupElement(member));
  }

  /**
   * The kernel's name of a device state.
   *
   * @param state a {@code VFIO_DEVICE_STATE_} number
   */
  public static String stateName(int state) {
    return switch (state) {
      case VFIO_DEVICE_STATE_ERROR -> "ERROR";
      case VFIO_DEVICE_STATE_STOP -> "STOP";
      case VFIO_DEVICE_STATE_RUNNING -> "RUNNING";
      case VFIO_DEVICE_STATE_STOP_COPY -> "STOP_COPY";
      case VFIO_DEVICE_STATE_RESUMING -> "RESUMING";
      case VFIO_DEVICE_STATE_RUNNING_P2P -> "RUNNING_P2P";
      case VFIO_DEVICE_STATE_PRE_COPY -> "PRE_COPY";
      case VFIO_DEVICE_STATE_PRE_COPY_P2P -> "PRE_COPY_P2P";
      default -> "state " + state;
    };
  }
}
