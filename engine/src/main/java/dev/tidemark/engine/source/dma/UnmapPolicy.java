package dev.tidemark.engine.source.dma;

/** What an unmap costs while tracking is on, where the kernel cannot unmap and tell in one call. */
public enum UnmapPolicy {
  /**
   * Ask first, then unmap. A device that writes a page in between, which was clean when asked, goes
   * unseen: {@link UnmapReport} says how long that window was. A guest that unmaps memory has
   * mostly told the device to be done with it.
   */
  QUERY,

  /** Unmap, then count the whole writable range as dirty: no window, more pages to send. */
  STRICT
}
