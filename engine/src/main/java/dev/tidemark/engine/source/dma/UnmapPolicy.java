package dev.tidemark.engine.source.dma;

/**
 * What an unmap costs while tracking is on, where the kernel cannot unmap and tell in one call: at
 * IOMMU page tables. What a device wrote between query and unmap is lost with the first policy, not
 * with the second, which is the default for that.
 */
public enum UnmapPolicy {
  /**
   * Ask first, then unmap. A write in between to a page that was clean when asked goes unseen, and
   * the guest at the destination has the old page: {@link UnmapReport} says how long that window
   * was and how many pages were open to it. For a VMM whose devices are quiesced before each unmap.
   */
  QUERY,

  /** Unmap, then count the whole writable range as dirty: no window, more pages to send. */
  STRICT
}
