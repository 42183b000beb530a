package dev.tidemark.bench.cli;

import dev.tidemark.ffm.NativeAccess;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** The command line: its commands, its exit statuses, and one line on stderr for whatever fails. */
@Command(
    name = "tidemark",
    description = "Dirty tracking and live migration, on the real kernel.",
    synopsisSubcommandLabel = "COMMAND",
    mixinStandardHelpOptions = true,
    version = "tidemark 0.1.0-SNAPSHOT",
    subcommands = {
      MigrateCommand.class,
      ReceiveCommand.class,
      ProbeCommand.class,
      ExplainCommand.class,
      RatiosCommand.class,
      PlotsCommand.class,
      JmhCommand.class
    })
public final class Tidemark implements Callable<Integer> {
  static final String PREFIX = "tidemark: ";

  static final int DONE = 0;
  static final int FAILED = 1;
  static final int WRONG_USAGE = 2;

  @Spec private CommandSpec spec;

  private Tidemark() {}

  /**
   * Runs a command.
   *
   * @return its exit status: 0 done, 1 failed, 2 wrong usage
   */
  public static int run(String... args) {
    CommandLine line = new CommandLine(new Tidemark());
    line.setCaseInsensitiveEnumValuesAllowed(true);
    line.getSubcommands().get("jmh").setUnmatchedOptionsArePositionalParams(true);
    line.setExecutionExceptionHandler(
        (e, command, parsed) -> {
          complain(e);
          return FAILED;
        });
    line.setParameterExceptionHandler(
        (e, rest) -> {
          System.err.println(PREFIX + oneLine(e.getMessage()));
          System.err.println(
              "Try '" + e.getCommandLine().getCommandSpec().qualifiedName() + " --help'.");
          return WRONG_USAGE;
        });
    Optional<String> missing = NativeAccess.missing();
    if (missing.isPresent() && args.length > 0 && !args[0].startsWith("-")) {
      System.err.println(PREFIX + missing.get());
      return FAILED;
    }
    return line.execute(args);
  }

  static void complain(Throwable failure) {
    String message = failure.getMessage();
    System.err.println(PREFIX + (message != null ? oneLine(message) : failure.toString()));
  }

  private static String oneLine(String text) {
    return text.replaceAll("\\s*\\R\\s*", "; ");
  }

  @Override
  public Integer call() {
    throw new ParameterException(spec.commandLine(), "which command?");
  }
}
