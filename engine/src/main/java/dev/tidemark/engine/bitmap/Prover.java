package dev.tidemark.engine.bitmap;

import dev.tidemark.engine.internal.Daemon;
import dev.tidemark.ffm.internal.Libc;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.function.Supplier;

/**
 * Proves vector kernels when they are wanted, and publishes each that is, in a thread of its own:
 * at a low priority, as a machine from which guests are moved away is busy, and only as long as
 * there is something to prove. Only callers of {@link #await} wait for it.
 */
final class Prover {
  /** Proofs of a kernel after which it stays scalar: each costs up to 64 MiB of garbage. */
  private static final int MAX_PROOFS = 5;

  /**
   * Not the lowest, 19: a thread in Java code has to run until it notices a safepoint, and the JVM
   * waits for it. Beside a load of 16 on two cores that was up to 400 ms at 19, 33 ms at 10.
   */
  private static final int NICE = 10;

  private final Supplier<CheckedBitmapOps> twin;
  private final GatedBitmapOps ops = new GatedBitmapOps(this);

  /** Kernels to prove, and those that stay scalar, as sets. */
  private final AtomicInteger wanted = new AtomicInteger();

  private final AtomicInteger refused = new AtomicInteger();

  private final AtomicIntegerArray proofs = new AtomicIntegerArray(Kernel.values().length);
  private final AtomicBoolean running = new AtomicBoolean();

  /**
   * @param twin the vector twin, asked for by the prover's thread when the first kernel is wanted;
   *     null if there is a reason against it, which the supplier has logged
   */
  Prover(Supplier<CheckedBitmapOps> twin) {
    this.twin = twin;
  }

  /** What this publishes to. */
  GatedBitmapOps ops() {
    return ops;
  }

  /** Has kernels proven, without waiting. */
  void want(int kernels) {
    int asked = kernels & ~refused.get() & ~ops.proven();
    if (asked != 0) {
      wanted.getAndUpdate(old -> old | asked);
      if (running.compareAndSet(false, true)) {
        start();
      }
    }
  }

  private void start() {
    try {
      Daemon.unstarted("tidemark-prover", this::run).start();
    } catch (OutOfMemoryError e) {
      // The kernel gives no further thread: scalar then, until the next time.
      wanted.set(0);
      running.set(false);
      wake();
    }
  }

  /** A published kernel allocated: scalar until it is proven again. */
  void allocated(Kernel kernel) {
    ops.retract(kernel);
    if ((refused.get() & kernel.bit) != 0) {
      logger()
          .log(
              System.Logger.Level.INFO,
              "{0} stays scalar: its vector twin deoptimized {1} times",
              kernel,
              MAX_PROOFS);
    }
    want(kernel.bit);
  }

  /**
   * Waits until nothing is left to prove.
   *
   * @return the kernels that are not proven, as a set
   */
  synchronized int await() throws InterruptedException {
    while (wanted.get() != 0) {
      wait();
    }
    return Kernel.ALL & ~ops.proven();
  }

  private synchronized void wake() {
    notifyAll();
  }

  /** Asked for when there is something to say: a process that proves nothing loads no logging. */
  private static System.Logger logger() {
    return System.getLogger(Bitmaps.class.getName());
  }

  private void run() {
    do {
      try (KernelProof proof = new KernelProof()) {
        Libc.setpriority(Libc.PRIO_PROCESS, 0, NICE);
        for (int left = wanted.get(); left != 0; left = wanted.get()) {
          prove(proof, Kernel.values()[Integer.numberOfTrailingZeros(left)]);
        }
      } catch (Throwable e) {
        refuse(Kernel.ALL);
        logger().log(System.Logger.Level.WARNING, "bitmap operations stay scalar", e);
      } finally {
        running.set(false);
      }
      // What was wanted since the last look found this thread still there.
    } while (wanted.get() != 0 && running.compareAndSet(false, true));
  }

  private void prove(KernelProof proof, Kernel kernel) {
    CheckedBitmapOps vector = twin.get();
    if (vector == null) {
      refuse(Kernel.ALL);
      return;
    }
    KernelProof.Verdict verdict = proof.prove(kernel, vector);
    boolean last = proofs.incrementAndGet(kernel.ordinal()) == MAX_PROOFS;
    switch (verdict) {
      case PROVEN -> ops.publish(kernel, vector);
      case WRONG ->
          logger()
              .log(
                  System.Logger.Level.WARNING,
                  "the compiled vector twin of {0} is wrong, and is not used: report it with the JVM's"
                      + " version",
                  kernel);
      case UNDECIDED ->
          logger()
              .log(
                  System.Logger.Level.INFO,
                  "{0} stays scalar{1}: its vector twin was not compiled after {2} MiB of garbage",
                  kernel,
                  last ? "" : " for now",
                  proof.garbage() >> 20);
    }
    if (last || verdict == KernelProof.Verdict.WRONG) {
      refuse(kernel.bit);
    }
    wanted.getAndUpdate(old -> old & ~kernel.bit);
    wake();
  }

  private void refuse(int kernels) {
    refused.getAndUpdate(old -> old | kernels);
    wanted.getAndUpdate(old -> old & ~kernels);
    wake();
  }
}
