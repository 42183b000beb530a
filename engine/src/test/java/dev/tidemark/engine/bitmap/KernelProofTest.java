package dev.tidemark.engine.bitmap;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.ChildJvm;
import dev.tidemark.engine.bitmap.KernelProof.Verdict;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class KernelProofTest {
  private static Object kept;

  /** The scalar twin, with one kernel that may do something besides. */
  private abstract static class Twin extends ScalarBitmapOps {
    final Kernel kernel;

    Twin(Kernel kernel) {
      this.kernel = kernel;
    }

    /** After a call of the kernel. */
    abstract long besides(MemorySegment map, long result);

    private long after(Kernel called, MemorySegment map, long result) {
      return called == kernel ? besides(map, result) : result;
    }

    @Override
    void doOr(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
      super.doOr(dst, dstBit, src, srcBit, bits);
      after(Kernel.OR, dst, 0);
    }

    @Override
    long doOrCount(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
      return after(Kernel.OR_COUNT, dst, super.doOrCount(dst, dstBit, src, srcBit, bits));
    }

    @Override
    long doOrCountClear(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
      return after(
          Kernel.OR_COUNT_CLEAR, dst, super.doOrCountClear(dst, dstBit, src, srcBit, bits));
    }

    @Override
    void doAndNot(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
      super.doAndNot(dst, dstBit, src, srcBit, bits);
      after(Kernel.AND_NOT, dst, 0);
    }

    @Override
    long doCardinality(MemorySegment map, long bit, long bits) {
      return after(Kernel.CARDINALITY, map, super.doCardinality(map, bit, bits));
    }

    @Override
    boolean doAny(MemorySegment map, long bit, long bits) {
      return after(Kernel.ANY, map, super.doAny(map, bit, bits) ? 1 : 0) == 1;
    }

    @Override
    void doSet(MemorySegment map, long bit, long bits) {
      super.doSet(map, bit, bits);
      after(Kernel.SET, map, 0);
    }

    @Override
    void doClear(MemorySegment map, long bit, long bits) {
      super.doClear(map, bit, bits);
      after(Kernel.CLEAR, map, 0);
    }

    @Override
    long doNextSet(MemorySegment map, long from, long end) {
      return after(Kernel.NEXT_SET, map, super.doNextSet(map, from, end));
    }

    @Override
    long doNextClear(MemorySegment map, long from, long end) {
      return after(Kernel.NEXT_CLEAR, map, super.doNextClear(map, from, end));
    }

    @Override
    long doSummarize(MemorySegment map, long words, MemorySegment lines) {
      return after(Kernel.SUMMARIZE, lines, super.doSummarize(map, words, lines));
    }

    @Override
    void doClearLines(MemorySegment map, long words, MemorySegment lines) {
      super.doClearLines(map, words, lines);
      after(Kernel.CLEAR_LINES, map, 0);
    }

    @Override
    long doOrLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines) {
      return after(Kernel.OR_LINES, dst, super.doOrLines(dst, src, words, lines));
    }

    @Override
    int listRuns(RunScan scan, long end, int n) {
      int found = super.listRuns(scan, end, n);
      if (kernel == Kernel.LIST_RUNS && found > n && besides(null, 0) != 0) {
        scan.ends[found - 1]++;
      }
      return found;
    }
  }

  private static Verdict prove(Kernel kernel, CheckedBitmapOps twin) {
    try (KernelProof proof = new KernelProof()) {
      return proof.prove(kernel, twin);
    }
  }

  @ParameterizedTest
  @EnumSource(Kernel.class)
  void whatAllocatesNothingAndIsRightIsProven(Kernel kernel) {
    assertEquals(Verdict.PROVEN, prove(kernel, new ScalarBitmapOps()));
  }

  /** C1 makes every object that there is in the code: only C2 leaves some out. */
  @Test
  void theScalarTwinAllocatesNothingHoweverItIsCompiled() throws Exception {
    ChildJvm child =
        ChildJvm.run(List.of(ChildJvm.FLAGS, "-XX:TieredStopAtLevel=1"), SimplyCompiled.class);
    assertEquals(0, child.status(), child.output());
    for (Kernel kernel : Kernel.values()) {
      assertTrue(child.output().contains(kernel + " PROVEN 0\n"), child.output());
    }
  }

  static final class SimplyCompiled {
    public static void main(String[] args) {
      CheckedBitmapOps twin = new ScalarBitmapOps();
      try (KernelProof proof = new KernelProof()) {
        for (Kernel kernel : Kernel.values()) {
          // The first links lambdas, loads classes and makes cursors.
          proof.prove(kernel, twin);
          Verdict verdict = proof.prove(kernel, twin);
          System.out.println(kernel + " " + verdict + " " + proof.garbage());
        }
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Kernel.class)
  void aWrongResultOrAWrongBitIsNoticed(Kernel kernel) {
    CheckedBitmapOps wrong =
        new Twin(kernel) {
          @Override
          long besides(MemorySegment map, long result) {
            if (map != null) {
              map.set(WORD, 0, map.get(WORD, 0) ^ 1);
            }
            return result ^ 1;
          }
        };
    assertEquals(Verdict.WRONG, prove(kernel, wrong));
  }

  @ParameterizedTest
  @EnumSource(Kernel.class)
  void aKernelThatGoesOnAllocatingIsGivenUp(Kernel kernel) {
    int[] calls = new int[1];
    CheckedBitmapOps garbage =
        new Twin(kernel) {
          @Override
          long besides(MemorySegment map, long result) {
            calls[0]++;
            kept = new byte[1 << 20];
            return kernel == Kernel.LIST_RUNS ? 0 : result;
          }
        };
    assertEquals(Verdict.UNDECIDED, prove(kernel, garbage));
    assertTrue(calls[0] <= 80, calls[0] + " MiB of garbage");
    assertTrue(kept != null);
  }

  @ParameterizedTest
  @EnumSource(Kernel.class)
  void aKernelThatStopsAllocatingIsProvenThen(Kernel kernel) {
    int[] calls = new int[1];
    CheckedBitmapOps late =
        new Twin(kernel) {
          @Override
          long besides(MemorySegment map, long result) {
            if (++calls[0] < 70) {
              kept = new byte[1000];
            }
            return kernel == Kernel.LIST_RUNS ? 0 : result;
          }
        };
    assertEquals(Verdict.PROVEN, prove(kernel, late));
    assertTrue(calls[0] >= 70, calls[0] + " calls");
  }
}
