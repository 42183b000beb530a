package dev.tidemark.ffm.userfaultfd;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Ioctl;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.StructLayout;

/** The part of {@code linux/fs.h} that {@code PAGEMAP_SCAN} needs, with the kernel's names. */
public final class PagemapUapi {
  /** The page lies in memory that is registered for asynchronous write protection. */
  public static final long PAGE_IS_WPALLOWED = 1;

  /** The page was written since it was last protected, or never was protected. */
  public static final long PAGE_IS_WRITTEN = 1 << 1;

  public static final long PAGE_IS_FILE = 1 << 2;
  public static final long PAGE_IS_PRESENT = 1 << 3;
  public static final long PAGE_IS_SWAPPED = 1 << 4;
  public static final long PAGE_IS_PFNZERO = 1 << 5;

  /** The page is mapped by a huge page-table entry. */
  public static final long PAGE_IS_HUGE = 1 << 6;

  public static final long PAGE_IS_SOFT_DIRTY = 1 << 7;

  /** Write-protects the pages that match. */
  public static final long PM_SCAN_WP_MATCHING = 1;

  /** Fails with {@code EPERM} at memory that is not registered, which is else skipped silently. */
  public static final long PM_SCAN_CHECK_WPASYNC = 1 << 1;

  /** {@code struct page_region}. */
  public static final StructLayout PAGE_REGION_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("start"),
              JAVA_LONG.withName("end"),
              JAVA_LONG.withName("categories"))
          .withName("page_region");

  /** {@code struct pm_scan_arg}. */
  public static final StructLayout PM_SCAN_ARG_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("size"),
              JAVA_LONG.withName("flags"),
              JAVA_LONG.withName("start"),
              JAVA_LONG.withName("end"),
              JAVA_LONG.withName("walk_end"),
              JAVA_LONG.withName("vec"),
              JAVA_LONG.withName("vec_len"),
              JAVA_LONG.withName("max_pages"),
              JAVA_LONG.withName("category_inverted"),
              JAVA_LONG.withName("category_mask"),
              JAVA_LONG.withName("category_anyof_mask"),
              JAVA_LONG.withName("return_mask"))
          .withName("pm_scan_arg");

  public static final Ioctl.Request PAGEMAP_SCAN =
      Ioctl._IOWR("PAGEMAP_SCAN", 'f', 16, PM_SCAN_ARG_LAYOUT);

  private PagemapUapi() {}
}
