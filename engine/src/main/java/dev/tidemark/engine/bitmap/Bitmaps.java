package dev.tidemark.engine.bitmap;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * The one gate: chooses between the vector and the scalar twin when this class is loaded, and logs
 * its choice in one line.
 *
 * <p>The system property {@code tidemark.vector} is {@code auto}, the default; {@code forbid} for
 * the scalar twin; or {@code require}, with which {@link #ops()} throws where the scalar twin would
 * have been chosen.
 */
public final class Bitmaps {
  private static final String PROPERTY = "tidemark.vector";
  private static final int MIN_WIDTH = 256;
  private static final int WARM_UP_ROUNDS = 100;

  /** Nanoseconds a kernel after which a migration had better begin with it slow than not at all. */
  private static final long WARM_UP_LIMIT = 400_000_000L;

  /** The same for harvests of all kinds. */
  private static final long HARVEST_LIMIT = 2_000_000_000L;

  private static final CheckedBitmapOps SCALAR = new ScalarBitmapOps();

  /** Why the scalar twin was chosen; null if the vector twin was. */
  private static final String REASON;

  private static final boolean REQUIRED;
  private static final CheckedBitmapOps OPS;
  private static final String DESCRIPTION;

  static {
    String mode = System.getProperty(PROPERTY, "auto");
    REQUIRED = mode.equals("require");
    REASON = reasonForScalar(mode);
    OPS = REASON == null ? Twin.vector() : SCALAR;
    DESCRIPTION = REASON == null ? "vector, " + Twin.width() + " bit" : "scalar: " + REASON;
    System.getLogger(Bitmaps.class.getName())
        .log(
            REASON == null ? System.Logger.Level.DEBUG : System.Logger.Level.INFO,
            "bitmap operations: " + DESCRIPTION);
  }

  /** Loaded only once the incubator module is known to be there. */
  private static final class Twin {
    private static final CheckedBitmapOps VECTOR = new VectorBitmapOps(compressesBytes());

    static CheckedBitmapOps vector() {
      return VECTOR;
    }

    static int width() {
      return VectorBitmapOps.WIDTH;
    }
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
    if (REQUIRED && REASON != null) {
      throw new IllegalStateException(
          PROPERTY + "=require, but bitmap operations are " + DESCRIPTION);
    }
    return OPS;
  }

  /** Which twin was chosen: {@code vector, 512 bit}, or {@code scalar: } and why. */
  public static String description() {
    return DESCRIPTION;
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
    return hasModule() ? Optional.of(Twin.vector()) : Optional.empty();
  }

  /**
   * Runs the chosen operations on scratch bitmaps until they have been compiled, so that the first
   * round of a migration does not run them interpreted; then checks the compiled code against the
   * scalar twin. Quick where they are compiled already, and worth its time before each migration:
   * code that has met another kind of memory since then is thrown away. The scalar twin needs none
   * of it: interpreted it is slow for moments, and never makes garbage as uncompiled vectors do.
   *
   * @return how long that took, in nanoseconds
   * @throws IllegalStateException if the compiled code is wrong
   */
  public static long warmUp() {
    long start = System.nanoTime();
    if (ops() == SCALAR) {
      return System.nanoTime() - start;
    }
    try (SelfTest test = SelfTest.ofManyWords();
        HarvestWarmUp harvests = new HarvestWarmUp()) {
      warmUp(test);
      if (!harvests.run(OPS, SCALAR, HARVEST_LIMIT)) {
        throw wrong("harvest");
      }
    }
    return System.nanoTime() - start;
  }

  /**
   * The same for {@link BitmapOps#zeroPages} alone, which is all that a destination runs on its
   * pages: a tenth of a second where {@link #warmUp()} takes two.
   *
   * @throws IllegalStateException if the compiled code is wrong
   */
  public static void warmUpZeroPages() {
    if (ops() != SCALAR) {
      try (SelfTest test = SelfTest.ofZeroPages()) {
        warmUp(test);
      }
    }
  }

  private static void warmUp(SelfTest test) {
    test.warmUp(OPS, WARM_UP_ROUNDS, WARM_UP_LIMIT);
    Optional<String> failure = test.difference(OPS, SCALAR);
    if (failure.isPresent()) {
      throw wrong(failure.get());
    }
  }

  private static IllegalStateException wrong(String kernel) {
    return new IllegalStateException(
        "compiled bitmap operation is wrong: " + kernel + "; run with -D" + PROPERTY + "=forbid");
  }

  private static String reasonForScalar(String mode) {
    if (mode.equals("forbid")) {
      return PROPERTY + "=forbid";
    }
    if (!mode.equals("auto") && !mode.equals("require")) {
      return PROPERTY + "=" + mode + " is none of auto, require and forbid";
    }
    if (!hasModule()) {
      return "no module jdk.incubator.vector: add --add-modules=jdk.incubator.vector (or start with"
          + " @jdk-flags.txt)";
    }
    if (!hasC2()) {
      return "the JVM has no C2 compiler at work, without which vectors are slow";
    }
    try {
      if (Twin.width() < MIN_WIDTH) {
        return "vectors of " + Twin.width() + " bit are no faster";
      }
      try (SelfTest test = SelfTest.ofFewWords()) {
        return test.difference(Twin.vector(), SCALAR)
            .map(kernel -> "self-test: the vector twin of " + kernel + " is wrong")
            .orElse(null);
      }
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
