/**
 * IOMMUFD ({@code /dev/iommu}, {@code linux/iommufd.h}): address spaces that devices see, page
 * tables made from them, and which pages devices wrote through a page table.
 *
 * <p>The owners call the kernel as it is. What it does not check ({@code
 * IOMMU_HWPT_GET_DIRTY_BITMAP} returns 0 for a range with a hole in it, for a bitmap that it cannot
 * write, for tracking that is off) is the caller's to know.
 */
package dev.tidemark.ffm.iommufd;
