package dev.tidemark.engine.bitmap;

import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Mapping;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;

/** What runs scalar and what does not, with twins whose calls are counted. */
class ProverTest {
  private static final long BITS = 1L << 27;
  private static volatile Object kept;

  private final Mapping mapping = Mapping.anonymous(BITS >> 3);
  private final AtomicInteger calls = new AtomicInteger();
  private final AtomicReference<Thread> prover = new AtomicReference<>();

  /** While it is set, counting bits allocates. */
  private volatile boolean allocates;

  private final CheckedBitmapOps twin =
      new ScalarBitmapOps() {
        @Override
        long doCardinality(MemorySegment map, long bit, long bits) {
          if (Thread.currentThread() == prover.get()) {
            return super.doCardinality(map, bit, bits);
          }
          calls.incrementAndGet();
          if (allocates) {
            kept = new byte[1 << 20];
          }
          return super.doCardinality(map, bit, bits);
        }
      };

  private final Prover gate =
      new Prover(
          () -> {
            prover.set(Thread.currentThread());
            return twin;
          });

  @AfterEach
  void unmap() {
    mapping.close();
  }

  private void count(long bits) {
    mapping.segment().set(JAVA_LONG, 0, 5);
    assertEquals(2, gate.ops().cardinality(mapping.segment(), 0, bits));
  }

  @Test
  void aKernelWithLittleToDoStaysScalarAndIsNotEvenLoaded() throws InterruptedException {
    for (int i = 0; i < 1000; i++) {
      count(1000);
    }
    assertEquals(Kernel.ALL, gate.await());
    assertEquals(null, prover.get());
    assertEquals(0, calls.get());
  }

  @Test
  void aKernelWithMuchToDoIsProvenAloneAndThenUsed() throws InterruptedException {
    count(BITS);
    assertEquals(0, calls.get(), "a call waits for nothing");
    assertEquals(Kernel.ALL & ~Kernel.CARDINALITY.bit, gate.await());
    count(BITS);
    count(64);
    assertEquals(2, calls.get());
    assertTrue(prover.get().isDaemon());
  }

  @Test
  void theProversThreadEndsAndALaterWishFindsAnother() throws InterruptedException {
    gate.want(Kernel.CARDINALITY.bit);
    gate.await();
    Thread first = prover.get();
    first.join();
    gate.want(Kernel.ANY.bit);
    assertEquals(Kernel.ALL & ~Kernel.CARDINALITY.bit & ~Kernel.ANY.bit, gate.await());
    assertTrue(prover.get() != first);
  }

  @Test
  void aKernelThatAllocatesGoesBackAndIsProvenAgain() throws InterruptedException {
    gate.want(Kernel.CARDINALITY.bit);
    gate.await();
    for (int lapse = 0; lapse < 4; lapse++) {
      int before = calls.get();
      allocates = true;
      count(BITS);
      allocates = false;
      gate.await();
      count(BITS);
      assertEquals(before + 2, calls.get(), "vectors once more after lapse " + lapse);
    }
    allocates = true;
    count(BITS);
    int last = calls.get();
    assertEquals(Kernel.ALL, gate.await(), "after five proofs it stays scalar");
    count(BITS);
    assertEquals(last, calls.get());
  }

  @Test
  void memoryOfAnArenaIsTheScalarTwins() throws InterruptedException {
    gate.want(Kernel.ALL);
    assertEquals(0, gate.await());
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment map = arena.allocate(64);
      assertEquals(0, gate.ops().cardinality(map, 0, 512));
    }
    assertEquals(0, calls.get());
  }

  @Test
  void withoutATwinAllStaysScalar() throws InterruptedException {
    Prover none = new Prover(() -> null);
    none.want(Kernel.ALL);
    assertEquals(Kernel.ALL, none.await());
    none.want(Kernel.ALL);
    assertEquals(Kernel.ALL, none.await());
  }

  @Test
  void aTwinThatFailsLeavesAllScalar() throws InterruptedException {
    Prover broken =
        new Prover(
            () -> {
              throw new IllegalStateException("no vectors (on purpose)");
            });
    broken.want(Kernel.ALL);
    assertEquals(Kernel.ALL, broken.await());
  }

  /** The twins read ahead in different ways: what one has begun the other cannot go on with. */
  @Test
  void aScanThatBeganOnOneTwinEndsOnIt() {
    CheckedBitmapOps vector =
        (CheckedBitmapOps) Bitmaps.vector().orElseGet(() -> Assumptions.abort("no vectors"));
    long bits = 1 << 20;
    MemorySegment map = mapping.segment();
    for (long bit = 0; bit < bits; bit += 7) {
      ScalarBitmapOps.setRange(map, bit, 1 + bit % 3);
    }
    GatedBitmapOps ops = gate.ops();
    long expected = ops.cardinality(map, 0, bits);
    for (boolean provenAtFirst : new boolean[] {false, true}) {
      ops.publish(Kernel.LIST_RUNS, vector);
      if (!provenAtFirst) {
        ops.retract(Kernel.LIST_RUNS);
      }
      RunCursor runs = new RunCursor(ops);
      runs.reset(map, 0, bits);
      long found = 0;
      long end = -1;
      int batches = 0;
      for (int some = runs.batch(); some > 0; some = runs.batch()) {
        for (int run = 0; run < some; run++) {
          assertTrue(runs.start(run) > end, "in order");
          end = runs.start(run) + runs.length(run);
          found += runs.length(run);
        }
        if (++batches % 2 == (provenAtFirst ? 1 : 0)) {
          ops.retract(Kernel.LIST_RUNS);
        } else {
          ops.publish(Kernel.LIST_RUNS, vector);
        }
      }
      assertTrue(batches > 10, batches + " batches");
      assertEquals(expected, found, "proven at first: " + provenAtFirst);
    }
  }
}
