package dev.tidemark.bench.jmh;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * What a call of the kernel costs: {@code KVM_GET_API_VERSION} of {@code linux/kvm.h}, which does
 * nothing else; without {@code /dev/kvm} the same number on {@code /dev/null}, which refuses it.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class IoctlBenchmark {
  private static final Ioctl.Request KVM_GET_API_VERSION =
      Ioctl._IO("KVM_GET_API_VERSION", 0xae, 0x00);

  private Fd fd;

  /** Opens the device, and checks its answer. */
  @Setup(Level.Trial)
  public void open() {
    try {
      fd = Fd.open("/dev/kvm", Fd.O_RDWR);
      Inputs.check(12, call(), "KVM_GET_API_VERSION");
    } catch (LinuxException e) {
      System.out.println(e.getMessage() + ": /dev/null instead");
      fd = Fd.open("/dev/null", Fd.O_RDWR);
      Inputs.check(-25, call(), "ioctl on /dev/null");
    }
  }

  /** Closes the device. */
  @TearDown(Level.Trial)
  public void close() {
    fd.close();
  }

  /** A request whose argument is a number. */
  @Benchmark
  public int call() {
    return Ioctl.tryCall(fd, KVM_GET_API_VERSION, 0L);
  }

  /** A request whose argument is memory; the kernel looks at neither. */
  @Benchmark
  public int callWithMemory() {
    return Ioctl.tryCall(fd, KVM_GET_API_VERSION, MemorySegment.NULL);
  }
}
