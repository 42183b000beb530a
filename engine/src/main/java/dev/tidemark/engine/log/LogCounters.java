package dev.tidemark.engine.log;

/**
 * What a log's work cost so far, counted where it is done.
 *
 * @param planeWords 64-bit words of one plane, for comparison
 * @param mergedWords words of source bitmaps that user space read to merge them into the fill plane
 * @param markWords words of the marks plane that were looked at because its summary said so
 * @param harvests how often the planes were flipped
 * @param harvestedWords words scanned to count and find the pages of epochs
 * @param queries calls to the kernel that asked for dirty pages or gave bits back to it
 */
public record LogCounters(
    long planeWords,
    long mergedWords,
    long markWords,
    long harvests,
    long harvestedWords,
    long queries) {

  /**
   * Full user-space passes over the bitmap, from the kernel's answer to the fill plane.
   *
   * @return merged words by words of a plane; 0 if every answer went straight into the fill plane
   */
  public double mergePasses() {
    return (double) mergedWords / planeWords;
  }

  /**
   * What was added since an earlier reading of the same log.
   *
   * @param earlier the earlier reading
   */
  public LogCounters since(LogCounters earlier) {
    return new LogCounters(
        planeWords,
        mergedWords - earlier.mergedWords,
        markWords - earlier.markWords,
        harvests - earlier.harvests,
        harvestedWords - earlier.harvestedWords,
        queries - earlier.queries);
  }
}
