package dev.tidemark.bench.guest;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.KvmDirtyRingSource;
import dev.tidemark.engine.source.KvmSlot;
import dev.tidemark.engine.source.KvmSlotLogSource;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmVcpu;
import dev.tidemark.ffm.kvm.KvmVm;
import dev.tidemark.ffm.lab.MiniGuest;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.channels.ServerSocketChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CyclicBarrier;

/**
 * A program that writes, syncs and compares, with signals that hit every thread which does so.
 * Arguments: source (ring, plain, manual, process), signals (yes, no), rounds, seed. It says what
 * it did and ends with status 0; or says which page was lost and ends with status 1.
 */
final class SignalStorm {
  private static final int WRITERS = 3;
  private static final long PAGES = 4096;
  private static final long RING_BYTES = 16_384;

  /** The JVM's own, to bring threads out of system calls; its handler does nothing. */
  private static final int SIGNAL = 62;

  private final int process = Libc.getpid();
  private final int[] threads = new int[WRITERS + 1];
  private final CyclicBarrier barrier = new CyclicBarrier(WRITERS + 1);
  private final SplittableRandom random;
  private final Mapping copy = Mapping.anonymous(PAGES * Pages.SIZE);
  private final MemorySegment memory;
  private final DirtyTracker tracker;
  private final MiniGuest guest;
  private Runnable ringFull = () -> {};

  /** Marks what a stop of this process may have unprotected, as the last sync does. */
  private Runnable unsure = () -> {};

  private volatile int writing;
  private volatile boolean over;
  private volatile Throwable failure;
  private long signals;
  private long syncs;

  private SignalStorm(String source, long seed) {
    random = new SplittableRandom(seed);
    guest =
        source.equals("process") ? null : new MiniGuest(WRITERS, PAGES, 0, vm -> ring(source, vm));
    memory =
        guest == null
            ? Mapping.anonymous(PAGES * Pages.SIZE).segment()
            : guest.memory.segment().asSlice(MiniGuest.TEST_START, PAGES * Pages.SIZE);
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory)));
    RamBlockLog log = tracker.logs().getFirst();
    List<KvmSlot> slots =
        List.of(new KvmSlot(MiniGuest.SLOT, log, 0, PAGES, MiniGuest.TEST_START, 0));
    switch (source) {
      case "ring" -> {
        List<KvmDirtyRing> rings = new ArrayList<>();
        guest.vcpus.forEach(vcpu -> rings.add(vcpu.mapDirtyRing(RING_BYTES)));
        var ring = new KvmDirtyRingSource(guest.vm, rings, slots, () -> {});
        ringFull = ring::reap;
        unsure = ring::markAlwaysDirty;
        tracker.add(ring);
      }
      case "plain", "manual" ->
          tracker.add(new KvmSlotLogSource(guest.vm, slots, source.equals("manual")));
      default -> tracker.add(new PagemapScanSource(tracker.logs()));
    }
  }

  private static void ring(String source, KvmVm vm) {
    if (source.equals("ring")) {
      vm.enableCap(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_BYTES);
    }
  }

  public static void main(String[] args) throws Exception {
    // Opening one installs the signal's handler.
    ServerSocketChannel.open().close();
    long seed = Long.parseLong(args[3]);
    System.exit(
        new SignalStorm(args[0], seed).run(args[1].equals("yes"), Integer.parseInt(args[2])));
  }

  private int run(boolean storm, int rounds) throws Exception {
    threads[WRITERS] = Libc.gettid();
    for (int id = 0; id < WRITERS; id++) {
      int writer = id;
      SplittableRandom mine = random.split();
      Thread.ofPlatform().daemon().start(() -> write(writer, mine));
    }
    tracker.start();
    barrier.await();
    if (storm) {
      Thread.ofPlatform().daemon().start(this::storm);
    }
    for (int round = 0; round < rounds; round++) {
      writing = WRITERS;
      barrier.await();
      // By turns while they write, and only when they have written many pages.
      while (round % 2 == 0 && writing > 0) {
        send();
      }
      barrier.await();
      tracker.sync();
      unsure.run();
      take();
      if (failure != null) {
        failure.printStackTrace();
        return 2;
      }
      long at = memory.mismatch(copy.segment());
      if (at >= 0) {
        System.out.printf(
            "lost: page %d in round %d, failures %d, signals %d%n",
            at >> Pages.SHIFT, round, tracker.failures(), signals);
        return 1;
      }
    }
    over = true;
    System.out.printf(
        "rounds %d, syncs %d, signals %d, failures %d%n",
        rounds, syncs, signals, tracker.failures());
    if (tracker.failures() > 0) {
      System.out.println("last failure: " + tracker.lastFailure());
    }
    return 0;
  }

  private void send() {
    tracker.syncUnprotected();
    syncs++;
    take();
  }

  private void take() {
    tracker.harvest();
    RunCursor runs = tracker.logs().getFirst().epoch().runs();
    for (int found; (found = runs.batch()) > 0; ) {
      for (int run = 0; run < found; run++) {
        tracker.protect(tracker.logs().getFirst(), runs.start(run), runs.length(run));
        long at = runs.start(run) << Pages.SHIFT;
        MemorySegment.copy(memory, at, copy.segment(), at, runs.length(run) << Pages.SHIFT);
      }
    }
    tracker.commit();
  }

  private void storm() {
    for (int i = 0; !over; i++) {
      // The thread that syncs gets half of them.
      Libc.tgkill(process, threads[i % 2 == 0 ? WRITERS : i / 2 % WRITERS], SIGNAL);
      signals++;
      for (int spin = 0; spin < 200; spin++) {
        Thread.onSpinWait();
      }
    }
  }

  private void write(int id, SplittableRandom mine) {
    threads[id] = Libc.gettid();
    try {
      barrier.await();
      for (long value = id + 1; ; value += WRITERS) {
        barrier.await();
        long stride = mine.nextInt(4) == 0 ? 1 + mine.nextInt(70) : 1;
        long count = 1 + mine.nextLong(PAGES / stride / 2);
        long first = mine.nextLong(PAGES - (count - 1) * stride);
        if (guest == null) {
          for (long page = first; count-- > 0; page += stride) {
            memory.set(ValueLayout.JAVA_LONG, page << Pages.SHIFT, value);
          }
        } else {
          vcpu(guest.vcpus.get(id), first, count, stride, value);
        }
        synchronized (this) {
          writing--;
        }
        barrier.await();
      }
    } catch (Throwable t) {
      failure = t;
      writing = 0;
      barrier.reset();
    }
  }

  private void vcpu(KvmVcpu vcpu, long first, long count, long stride, long value) {
    guest.program(vcpu, first, count, stride, value);
    while (true) {
      int reason = vcpu.run();
      switch (reason) {
        case KvmConstants.KVM_EXIT_IO -> {
          return;
        }
        case KvmVcpu.INTERRUPTED, KvmVcpu.TRY_AGAIN -> {}
        case KvmConstants.KVM_EXIT_DIRTY_RING_FULL -> ringFull.run();
        default -> throw new IllegalStateException(KvmConstants.exitName(reason));
      }
    }
  }
}
