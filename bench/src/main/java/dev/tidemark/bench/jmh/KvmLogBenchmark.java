package dev.tidemark.bench.jmh;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.KvmSlot;
import dev.tidemark.engine.source.KvmSlotLogSource;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmVm;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/** KVM's log of a guest that writes nothing, to the plane: what each round costs at least. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class KvmLogBenchmark {
  /** Bytes of the slot, reserved and not touched. */
  @Param({"1073741824", "17179869184"})
  long bytes;

  private Mapping memory;
  private Kvm kvm;
  private KvmVm vm;
  private DirtyTracker tracker;

  /** Makes a VM with one slot, and turns tracking on. */
  @Setup(Level.Trial)
  public void start() {
    Inputs.warmUp();
    memory = Mapping.anonymous(bytes);
    kvm = Kvm.open();
    vm = kvm.createVm();
    RamBlock block = new RamBlock("ram", memory.segment());
    tracker = new DirtyTracker(List.of(block));
    long pages = bytes / Pages.SIZE;
    KvmSlot slot = new KvmSlot(0, tracker.logs().getFirst(), 0, pages, 0, 0);
    tracker.add(new KvmSlotLogSource(vm, List.of(slot), false));
    tracker.start();
    Inputs.check(pages, round(), "pages of the first round");
    Inputs.check(0, round(), "pages of the second round");
  }

  /** Turns tracking off. */
  @TearDown(Level.Trial)
  public void stop() {
    tracker.close();
    vm.close();
    kvm.close();
    memory.close();
  }

  /** Asks, merges and takes. */
  @Benchmark
  public long round() {
    tracker.sync();
    long pages = tracker.harvest();
    tracker.commit();
    return pages;
  }
}
