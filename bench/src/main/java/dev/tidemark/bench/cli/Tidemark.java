package dev.tidemark.bench.cli;

import dev.tidemark.ffm.NativeAccess;
import dev.tidemark.ffm.Pages;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.NoSuchFileException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** The command line: its commands, its exit statuses, and one line on stderr for whatever fails. */
@Command(
    name = "tidemark",
    description = "Dirty tracking and live migration, on the real kernel.",
    synopsisSubcommandLabel = "COMMAND",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class)
public final class Tidemark implements Callable<Integer> {
  static final String PREFIX = "tidemark: ";

  static final int DONE = 0;
  static final int FAILED = 1;
  static final int WRONG_USAGE = 2;

  @Spec private CommandSpec spec;

  private Tidemark() {}

  /** The version is the POM's, which the build puts into the jar's manifest. */
  static final class Version implements IVersionProvider {
    @Override
    public String[] getVersion() {
      String version = Tidemark.class.getPackage().getImplementationVersion();
      return new String[] {"tidemark " + (version == null ? "(not from its jar)" : version)};
    }
  }

  /**
   * Runs a command. Where it takes {@code --json} and fails, the failure is a JSON object on stdout
   * too.
   *
   * @return its exit status: 0 done, 1 failed, 2 wrong usage
   */
  public static int run(String... args) {
    int status = execute(args);
    // A PrintStream keeps its failures to itself until it is asked.
    if (System.out.checkError() && status == DONE) {
      complain("not all of the output could be written: is the device full, or the reader gone?");
      return FAILED;
    }
    return status;
  }

  /** What only the parser knows: no other command's options take time. */
  private static CommandLine commandLine(String first) {
    CommandLine line = new CommandLine(new Tidemark());
    switch (first) {
      case "migrate" -> line.addSubcommand(new MigrateCommand());
      case "receive" -> line.addSubcommand(new ReceiveCommand());
      default -> {
        line.addSubcommand(new MigrateCommand());
        line.addSubcommand(new ReceiveCommand());
        line.addSubcommand(new ProbeCommand());
        line.addSubcommand(new ExplainCommand());
        line.addSubcommand(new RatiosCommand());
        line.addSubcommand(new DuelCommand());
        line.addSubcommand(new PlotsCommand());
        CommandLine jmh = new CommandLine(new JmhCommand());
        line.addSubcommand(jmh.setUnmatchedOptionsArePositionalParams(true));
      }
    }
    return line.setCaseInsensitiveEnumValuesAllowed(true);
  }

  private static int execute(String... args) {
    boolean json = List.of(args).contains("--json");
    String first = args.length == 0 ? "" : args[0];
    Optional<String> missing = NativeAccess.missing();
    if (missing.isEmpty() && (first.equals("migrate") || first.equals("receive"))) {
      // Whatever uses them has the C library's functions bound, which takes longer than the parser.
      Thread.ofPlatform().daemon().name("calls").start(() -> Pages.roundUp(1));
    }
    CommandLine line = commandLine(first);
    line.setExecutionExceptionHandler((e, command, parsed) -> fail(text(e), json, FAILED));
    line.setParameterExceptionHandler(
        (e, rest) -> {
          int status = fail(text(e), json, WRONG_USAGE);
          System.err.println(
              "Try '" + e.getCommandLine().getCommandSpec().qualifiedName() + " --help'.");
          return status;
        });
    if (missing.isPresent() && args.length > 0 && !first.startsWith("-")) {
      return fail(missing.get(), json, FAILED);
    }
    return line.execute(args);
  }

  private static int fail(String reason, boolean json, int status) {
    if (json) {
      System.out.println(Json.of(failure("failed", reason)));
    }
    complain(reason);
    return status;
  }

  /** What {@code --json} says of a failure, at least. */
  static Map<String, Object> failure(String status, String reason) {
    Map<String, Object> failure = new LinkedHashMap<>();
    failure.put("status", status);
    failure.put("reason", reason);
    return failure;
  }

  /** The one line on stderr for a failure. */
  static void complain(String reason) {
    System.err.println(PREFIX + Text.line(reason));
  }

  /** A failure in one line for people. */
  static String text(Throwable failure) {
    String message = failure.getMessage();
    if (message == null) {
      return Text.line(failure.toString());
    }
    // Of most of these the message is a path alone.
    String kind =
        switch (failure) {
          case NoSuchFileException _ -> "no such file or folder: ";
          case AccessDeniedException _ -> "access denied: ";
          case FileAlreadyExistsException _ -> "there is a file already: ";
          default -> "";
        };
    return Text.line(kind + message);
  }

  @Override
  public Integer call() {
    throw new ParameterException(spec.commandLine(), "which command?");
  }
}
