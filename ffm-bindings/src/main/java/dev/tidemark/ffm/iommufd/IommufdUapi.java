package dev.tidemark.ffm.iommufd;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.ffm.Ioctl;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.StructLayout;

/** {@code linux/iommufd.h}: numbers and structures, with the kernel's names. */
public final class IommufdUapi {
  public static final int IOMMU_IOAS_MAP_FIXED_IOVA = 1;
  public static final int IOMMU_IOAS_MAP_WRITEABLE = 1 << 1;
  public static final int IOMMU_IOAS_MAP_READABLE = 1 << 2;

  public static final int IOMMU_OPTION_RLIMIT_MODE = 0;
  public static final int IOMMU_OPTION_HUGE_PAGES = 1;
  public static final int IOMMU_OPTION_OP_SET = 0;
  public static final int IOMMU_OPTION_OP_GET = 1;

  public static final int IOMMU_VFIO_IOAS_GET = 0;
  public static final int IOMMU_VFIO_IOAS_SET = 1;
  public static final int IOMMU_VFIO_IOAS_CLEAR = 2;

  public static final int IOMMU_HWPT_ALLOC_NEST_PARENT = 1;

  /**
   * The page table tells which pages devices wrote; every device attached to it must be able to.
   */
  public static final int IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1;

  /** The device's IOMMU can have page tables with {@link #IOMMU_HWPT_ALLOC_DIRTY_TRACKING}. */
  public static final long IOMMU_HW_CAP_DIRTY_TRACKING = 1;

  public static final int IOMMU_HW_INFO_TYPE_NONE = 0;
  public static final int IOMMU_HW_INFO_TYPE_INTEL_VTD = 1;

  public static final int IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1;

  /** Report without clearing, and without flushing the IOTLB. */
  public static final int IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1;

  /** {@code struct iommu_destroy}. */
  public static final StructLayout IOMMU_DESTROY_LAYOUT =
      MemoryLayout.structLayout(JAVA_INT.withName("size"), JAVA_INT.withName("id"))
          .withName("iommu_destroy");

  /** {@code struct iommu_ioas_alloc}. */
  public static final StructLayout IOMMU_IOAS_ALLOC_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("out_ioas_id"))
          .withName("iommu_ioas_alloc");

  /** {@code struct iommu_iova_range}. */
  public static final StructLayout IOMMU_IOVA_RANGE_LAYOUT =
      MemoryLayout.structLayout(JAVA_LONG.withName("start"), JAVA_LONG.withName("last"))
          .withName("iommu_iova_range");

  /** {@code struct iommu_ioas_iova_ranges}. */
  public static final StructLayout IOMMU_IOAS_IOVA_RANGES_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("ioas_id"),
              JAVA_INT.withName("num_iovas"),
              JAVA_INT.withName("__reserved"),
              JAVA_LONG.withName("allowed_iovas"),
              JAVA_LONG.withName("out_iova_alignment"))
          .withName("iommu_ioas_iova_ranges");

  /** {@code struct iommu_ioas_allow_iovas}. */
  public static final StructLayout IOMMU_IOAS_ALLOW_IOVAS_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("ioas_id"),
              JAVA_INT.withName("num_iovas"),
              JAVA_INT.withName("__reserved"),
              JAVA_LONG.withName("allowed_iovas"))
          .withName("iommu_ioas_allow_iovas");

  /** {@code struct iommu_ioas_map}. */
  public static final StructLayout IOMMU_IOAS_MAP_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("ioas_id"),
              JAVA_INT.withName("__reserved"),
              JAVA_LONG.withName("user_va"),
              JAVA_LONG.withName("length"),
              JAVA_LONG.withName("iova"))
          .withName("iommu_ioas_map");

  /** {@code struct iommu_ioas_copy}. */
  public static final StructLayout IOMMU_IOAS_COPY_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("dst_ioas_id"),
              JAVA_INT.withName("src_ioas_id"),
              JAVA_LONG.withName("length"),
              JAVA_LONG.withName("dst_iova"),
              JAVA_LONG.withName("src_iova"))
          .withName("iommu_ioas_copy");

  /** {@code struct iommu_ioas_unmap}. */
  public static final StructLayout IOMMU_IOAS_UNMAP_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("ioas_id"),
              JAVA_LONG.withName("iova"),
              JAVA_LONG.withName("length"))
          .withName("iommu_ioas_unmap");

  /** {@code struct iommu_option}. */
  public static final StructLayout IOMMU_OPTION_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("option_id"),
              JAVA_SHORT.withName("op"),
              JAVA_SHORT.withName("__reserved"),
              JAVA_INT.withName("object_id"),
              JAVA_LONG.withName("val64"))
          .withName("iommu_option");

  /** {@code struct iommu_vfio_ioas}. */
  public static final StructLayout IOMMU_VFIO_IOAS_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("ioas_id"),
              JAVA_SHORT.withName("op"),
              JAVA_SHORT.withName("__reserved"))
          .withName("iommu_vfio_ioas");

  /** {@code struct iommu_hwpt_alloc}. */
  public static final StructLayout IOMMU_HWPT_ALLOC_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("dev_id"),
              JAVA_INT.withName("pt_id"),
              JAVA_INT.withName("out_hwpt_id"),
              JAVA_INT.withName("__reserved"),
              JAVA_INT.withName("data_type"),
              JAVA_INT.withName("data_len"),
              JAVA_LONG.withName("data_uptr"),
              JAVA_INT.withName("fault_id"),
              JAVA_INT.withName("__reserved2"))
          .withName("iommu_hwpt_alloc");

  /**
   * {@code struct iommu_hw_info}; the padding has a member on some kernels (linux-6.12.117:
   * out_max_pasid_log2).
   */
  public static final StructLayout IOMMU_HW_INFO_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("dev_id"),
              JAVA_INT.withName("data_len"),
              JAVA_LONG.withName("data_uptr"),
              JAVA_INT.withName("out_data_type"),
              MemoryLayout.paddingLayout(4),
              JAVA_LONG.withName("out_capabilities"))
          .withName("iommu_hw_info");

  /** {@code struct iommu_hwpt_set_dirty_tracking}. */
  public static final StructLayout IOMMU_HWPT_SET_DIRTY_TRACKING_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("hwpt_id"),
              JAVA_INT.withName("__reserved"))
          .withName("iommu_hwpt_set_dirty_tracking");

  /** {@code struct iommu_hwpt_get_dirty_bitmap}. */
  public static final StructLayout IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("hwpt_id"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("__reserved"),
              JAVA_LONG.withName("iova"),
              JAVA_LONG.withName("length"),
              JAVA_LONG.withName("page_size"),
              JAVA_LONG.withName("data"))
          .withName("iommu_hwpt_get_dirty_bitmap");

  /** {@code struct iommu_ioas_map_file}, which linux-6.12 does not have. */
  static final StructLayout IOMMU_IOAS_MAP_FILE_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_INT.withName("size"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("ioas_id"),
              JAVA_INT.withName("fd"),
              JAVA_LONG.withName("start"),
              JAVA_LONG.withName("length"),
              JAVA_LONG.withName("iova"))
          .withName("iommu_ioas_map_file");

  private static final int IOMMUFD_TYPE = ';';

  public static final Ioctl.Request IOMMU_DESTROY = Ioctl._IO("IOMMU_DESTROY", IOMMUFD_TYPE, 0x80);
  public static final Ioctl.Request IOMMU_IOAS_ALLOC =
      Ioctl._IO("IOMMU_IOAS_ALLOC", IOMMUFD_TYPE, 0x81);
  public static final Ioctl.Request IOMMU_IOAS_ALLOW_IOVAS =
      Ioctl._IO("IOMMU_IOAS_ALLOW_IOVAS", IOMMUFD_TYPE, 0x82);
  public static final Ioctl.Request IOMMU_IOAS_COPY =
      Ioctl._IO("IOMMU_IOAS_COPY", IOMMUFD_TYPE, 0x83);
  public static final Ioctl.Request IOMMU_IOAS_IOVA_RANGES =
      Ioctl._IO("IOMMU_IOAS_IOVA_RANGES", IOMMUFD_TYPE, 0x84);
  public static final Ioctl.Request IOMMU_IOAS_MAP =
      Ioctl._IO("IOMMU_IOAS_MAP", IOMMUFD_TYPE, 0x85);
  public static final Ioctl.Request IOMMU_IOAS_UNMAP =
      Ioctl._IO("IOMMU_IOAS_UNMAP", IOMMUFD_TYPE, 0x86);
  public static final Ioctl.Request IOMMU_OPTION = Ioctl._IO("IOMMU_OPTION", IOMMUFD_TYPE, 0x87);
  public static final Ioctl.Request IOMMU_VFIO_IOAS =
      Ioctl._IO("IOMMU_VFIO_IOAS", IOMMUFD_TYPE, 0x88);
  public static final Ioctl.Request IOMMU_HWPT_ALLOC =
      Ioctl._IO("IOMMU_HWPT_ALLOC", IOMMUFD_TYPE, 0x89);
  public static final Ioctl.Request IOMMU_GET_HW_INFO =
      Ioctl._IO("IOMMU_GET_HW_INFO", IOMMUFD_TYPE, 0x8a);
  public static final Ioctl.Request IOMMU_HWPT_SET_DIRTY_TRACKING =
      Ioctl._IO("IOMMU_HWPT_SET_DIRTY_TRACKING", IOMMUFD_TYPE, 0x8b);
  public static final Ioctl.Request IOMMU_HWPT_GET_DIRTY_BITMAP =
      Ioctl._IO("IOMMU_HWPT_GET_DIRTY_BITMAP", IOMMUFD_TYPE, 0x8c);

  /** Not public, because linux-6.12 does not have it. */
  static final Ioctl.Request IOMMU_IOAS_MAP_FILE =
      Ioctl._IO("IOMMU_IOAS_MAP_FILE", IOMMUFD_TYPE, 0x8f);

  private IommufdUapi() {}

  static long offset(StructLayout layout, String member) {
    return layout.byteOffset(PathElement.groupElement(member));
  }
}
