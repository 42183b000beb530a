package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * Calls the methods with vectors that a kernel consists of, with nothing to do. HotSpot compiles a
 * method once it was called some thousand times, for the inputs of its profile; a call with
 * something to do allocates until then, and one without returns before it has made a vector.
 */
final class EmptyCalls {
  /**
   * One in so many attempts makes the calls. Of a call that is less frequent than one in four C2
   * inlines no method of this size (InlineFrequencyRatio), and a call that was inlined would not be
   * counted.
   */
  static final int ATTEMPTS = 8;

  private EmptyCalls() {}

  /**
   * Calls each method of a kernel once, or does nothing.
   *
   * @param attempt the number of the attempt
   * @param map any memory of endless scope
   * @param scan begun with that memory, with nothing to list
   */
  static void make(Kernel kernel, int attempt, MemorySegment map, RunScan scan) {
    if (attempt % ATTEMPTS != 0) {
      return;
    }
    switch (kernel) {
      case SUMMARIZE -> {
        if (Vectors.BYTES == Vectors.LINE) {
          VectorLines.summarizeLines(map.address(), 0, map.address());
        } else {
          VectorLines.summarizeParts(map, 0, map);
        }
      }
      case LIST_RUNS -> {
        if (Vectors.BYTES != Vectors.LINE) {
          VectorRuns.listRunsOfParts(scan, 0, 0);
          return;
        }
        VectorRuns.collectLines(scan, 0);
        VectorRuns.readAhead(scan, 0, 0);
        VectorRuns.collectWords(scan, 0);
        VectorRuns.skipFull(map, scan.ends, 0, 0, 0);
        VectorRuns.listWords(scan.edges, 0, 0, 0, scan.ends, 0);
        VectorRuns.listRest(0, 0, scan.ends, 0);
      }
      case CLEAR_LINES -> {
        VectorLines.clearParts(map, 0, 0, map);
        VectorLines.clearByAddress(map.address(), 0, map.address());
      }
      case OR_LINES -> VectorLines.orWholeLines(map, map, 0, map);
      case OR_COUNT -> {
        VectorMerges.skipClean(map, 0, 0, 0);
        VectorMerges.skipCleanShifted(map, 0, 0, 0);
        VectorMerges.orCountAlignedStretches(map, 0, map, 0, 0);
        VectorMerges.orCountShiftedStretches(map, 0, map, 0, 0, 1);
      }
      case OR_COUNT_CLEAR -> {
        VectorMerges.skipClean(map, 0, 0, 0);
        VectorMerges.skipCleanShifted(map, 0, 0, 0);
        VectorMerges.orCountClearByAddress(map.address(), map.address(), 0);
        VectorMerges.orCountClearShiftedStretches(map, 0, map, 0, 0, 1);
      }
      case OR -> {
        VectorMerges.skipClean(map, 0, 0, 0);
        VectorMerges.skipCleanShifted(map, 0, 0, 0);
        VectorMerges.orAlignedStretches(map, 0, map, 0, 0);
        VectorMerges.orShiftedStretches(map, 0, map, 0, 0, 1);
      }
      case AND_NOT -> {
        VectorMerges.skipClean(map, 0, 0, 0);
        VectorMerges.skipCleanShifted(map, 0, 0, 0);
        VectorMerges.andNotAlignedStretches(map, 0, map, 0, 0);
        VectorMerges.andNotShiftedStretches(map, 0, map, 0, 0, 1);
      }
      case CARDINALITY -> VectorBitmapOps.cardinalityBody(map, 0, 0);
      case ANY, NEXT_SET -> VectorBitmapOps.firstSetVector(map, 0, 0);
      case NEXT_CLEAR -> VectorBitmapOps.firstNotFullVector(map, 0, 0);
      case SET, CLEAR -> Vectors.fill(map, 0, 0, 0);
    }
  }
}
