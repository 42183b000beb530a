package dev.tidemark.engine.source.dma;

/**
 * What unmaps while tracking was on came to.
 *
 * @param unmaps gap-free runs that were unmapped
 * @param queried how many of them after all page tables had been asked
 * @param windowNanos from the start of the query to the return of the unmap, all queried together
 * @param longestWindowNanos the longest of these
 * @param openPages pages that devices may write and that were clean when queried, all queried
 *     together: as many as the window can have missed. Those reported dirty are sent after it
 * @param takenPages pages that queries reported dirty, or the unmap itself
 * @param wholePages pages that counted as dirty unasked: strict, always dirty, or after a failure
 * @param failedQueries queries that failed
 * @param failedUnmaps unmaps that failed or did less than they should
 */
public record UnmapReport(
    long unmaps,
    long queried,
    long windowNanos,
    long longestWindowNanos,
    long openPages,
    long takenPages,
    long wholePages,
    long failedQueries,
    long failedUnmaps) {}
