package dev.tidemark.engine.bitmap;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * The one gate: hands out the operations, which are the scalar twin's until a kernel of the vector
 * twin has been seen to be compiled and right. Nothing waits for that: a thread of the library's
 * own proves a kernel once the scalar twin has had milliseconds of its work.
 *
 * <p>The system property {@code tidemark.vector} is {@code auto}, the default; {@code forbid} for
 * the scalar twin; or, for tests, {@code eager} for the vector twin from the first call on,
 * compiled or not, where this machine has vectors, and {@code require} for the same, with which
 * {@link #ops()} throws where it has not.
 */
public final class Bitmaps {
  private static final String PROPERTY = "tidemark.vector";
  private static final int MIN_WIDTH = 256;
  private static final String MODE = System.getProperty(PROPERTY, "auto");
  private static final ScalarBitmapOps SCALAR = new ScalarBitmapOps();
  private static final Prover PROVER = new Prover(Twin::usable);

  /** Loads no class of vectors: a process that needs none starts without them. */
  private static final CheckedBitmapOps OPS =
      switch (MODE) {
        case "forbid" -> SCALAR;
        case "require" -> Twin.VECTOR_OR_NULL;
        case "eager" -> Twin.VECTOR_OR_NULL == null ? SCALAR : Twin.VECTOR_OR_NULL;
        default -> PROVER.ops();
      };

  /** What is known once it is needed, as it takes some time to know. */
  private static final class Twin {
    /** Why the scalar twin is used; null if vectors can be. */
    private static final String REASON = reasonForScalar();

    private static final CheckedBitmapOps VECTOR_OR_NULL = REASON == null ? Vector.OPS : null;

    private static final String DESCRIPTION =
        REASON == null ? "vector, " + VectorBitmapOps.WIDTH + " bit" : "scalar: " + REASON;

    static {
      System.getLogger(Bitmaps.class.getName())
          .log(
              REASON == null ? System.Logger.Level.DEBUG : System.Logger.Level.INFO,
              "bitmap operations: " + DESCRIPTION);
    }

    static CheckedBitmapOps usable() {
      return VECTOR_OR_NULL;
    }
  }

  /** Loaded only once the incubator module is known to be there. */
  private static final class Vector {
    private static final CheckedBitmapOps OPS = new VectorBitmapOps(compressesBytes());
  }

  private Bitmaps() {}

  /**
   * The operations to use on this machine.
   *
   * @throws IllegalStateException if vectors are required and there is a reason against them
   */
  public static BitmapOps ops() {
    return chosen();
  }

  static CheckedBitmapOps chosen() {
    if (OPS == null) {
      throw new IllegalStateException(
          PROPERTY + "=require, but bitmap operations are " + Twin.DESCRIPTION);
    }
    return OPS;
  }

  /**
   * Which twin this JVM can use: {@code vector, 512 bit}, or {@code scalar: } and why. Cost: some
   * tens of milliseconds when first asked.
   */
  public static String description() {
    return Twin.DESCRIPTION;
  }

  /**
   * Which kernels run as vectors now, for a log or a result: in auto mode those that were needed
   * and are proven. Cost: microseconds; nothing is loaded for it.
   */
  public static String inUse() {
    if (OPS == SCALAR) {
      return "scalar: " + PROPERTY + "=" + MODE;
    }
    if (OPS != PROVER.ops()) {
      return "vector: " + PROPERTY + "=" + MODE;
    }
    int proven = PROVER.ops().proven();
    return proven == 0
        ? "scalar"
        : proven == Kernel.ALL
            ? "vector"
            : "vector: " + names(proven) + "; scalar: " + names(Kernel.ALL & ~proven);
  }

  /**
   * Has every kernel proven now, and waits for that: for an agent that starts long before its first
   * migration. Without it kernels are proven when they are needed.
   *
   * <p>Cost: about two seconds of one core, 64 MiB of garbage; nothing where it is done already.
   *
   * @return the names of the kernels that stay scalar; empty if all are vectors
   * @throws InterruptedException if the thread was interrupted; the proof goes on
   */
  public static List<String> prove() throws InterruptedException {
    if (OPS != PROVER.ops()) {
      return OPS == SCALAR ? names(Kernel.ALL) : List.of();
    }
    PROVER.want(Kernel.ALL);
    return names(PROVER.await());
  }

  private static List<String> names(int kernels) {
    List<String> names = new ArrayList<>();
    for (Kernel kernel : Kernel.values()) {
      if ((kernels & kernel.bit) != 0) {
        names.add(kernel.name());
      }
    }
    return names;
  }

  /** The scalar twin, whatever was chosen: for tests and benchmarks. */
  public static BitmapOps scalar() {
    return SCALAR;
  }

  /**
   * The vector twin, whatever was chosen: for tests and benchmarks.
   *
   * @return empty if the incubator module is not there
   */
  public static Optional<BitmapOps> vector() {
    return hasModule() ? Optional.of(Vector.OPS) : Optional.empty();
  }

  private static String reasonForScalar() {
    if (MODE.equals("forbid")) {
      return PROPERTY + "=forbid";
    }
    if (!Set.of("auto", "eager", "require").contains(MODE)) {
      return PROPERTY + "=" + MODE + " is none of auto, eager, require and forbid";
    }
    if (!hasModule()) {
      return "no module jdk.incubator.vector: add --add-modules=jdk.incubator.vector (or start with"
          + " @jdk-flags.txt)";
    }
    if (!hasC2()) {
      return "the JVM has no C2 compiler at work, without which vectors are slow";
    }
    try {
      return VectorBitmapOps.WIDTH < MIN_WIDTH
          ? "vectors of " + VectorBitmapOps.WIDTH + " bit are no faster"
          : null;
    } catch (RuntimeException | LinkageError e) {
      return "vectors do not work: " + e;
    }
  }

  private static boolean hasModule() {
    // On the class path the module is there only if asked for; on the module path it also must be
    // readable, which `requires static` sees to.
    return ModuleLayer.boot()
        .findModule("jdk.incubator.vector")
        .filter(Bitmaps.class.getModule()::canRead)
        .isPresent();
  }

  private static boolean hasC2() {
    return !System.getProperty("java.vm.info", "").contains("interpreted")
        && option("TieredStopAtLevel").filter("4"::equals).isPresent()
        && option("UseJVMCICompiler").filter("true"::equals).isEmpty();
  }

  /** The JVM does not tell what it makes of it, and without the instruction it makes objects. */
  private static boolean compressesBytes() {
    try {
      return Files.readString(Path.of("/proc/cpuinfo")).contains("avx512_vbmi2");
    } catch (IOException e) {
      return false;
    }
  }

  /** A HotSpot option's value; empty on another JVM, or where this build does not have it. */
  private static Optional<String> option(String name) {
    try {
      return Optional.of(
          ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class)
              .getVMOption(name)
              .getValue());
    } catch (IllegalArgumentException | NullPointerException e) {
      return Optional.empty();
    }
  }
}
