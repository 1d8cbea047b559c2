// A Java client that logs in from a ccache in a loop, as JDBC drivers do, until its standard input ends.
// With a service as argument, it also creates a GSS token for it each time.

import java.security.PrivilegedExceptionAction;
import java.util.HashMap;
import java.util.Map;
import javax.security.auth.Subject;
import javax.security.auth.login.AppConfigurationEntry;
import javax.security.auth.login.Configuration;
import javax.security.auth.login.LoginContext;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSCredential;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.GSSName;
import org.ietf.jgss.Oid;

public class CcacheReader {
    interface Read {
        void run() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        Configuration configuration = configuration();
        repeat(() -> read(configuration, arguments));
    }

    static void repeat(Read read) throws Exception {
        int reads = 0;
        int failed = 0;
        StringBuilder failures = new StringBuilder();
        System.out.println("ready");
        while (System.in.available() == 0) {
            reads++;
            try {
                read.run();
            } catch (Exception error) {
                if (failed++ < 20) {
                    failures.append(failures.length() == 0 ? "" : ", ");
                    failures.append('"').append(error.toString().replaceAll("[^\\w .:/@-]", " ")).append('"');
                }
            }
        }
        System.out.println("{\"reads\": " + reads + ", \"failures\": [" + failures + "], \"failed\": " + failed + "}");
        System.exit(0);
    }

    static Configuration configuration() {
        Map<String, String> options = new HashMap<>();
        options.put("useTicketCache", "true");
        options.put("doNotPrompt", "true");
        AppConfigurationEntry entry = new AppConfigurationEntry(
            "com.sun.security.auth.module.Krb5LoginModule",
            AppConfigurationEntry.LoginModuleControlFlag.REQUIRED, options);
        return new Configuration() {
            @Override
            public AppConfigurationEntry[] getAppConfigurationEntry(String name) {
                return new AppConfigurationEntry[] {entry};
            }
        };
    }

    static void read(Configuration configuration, String[] arguments) throws Exception {
        LoginContext login = new LoginContext("reader", new Subject(), null, configuration);
        login.login();
        if (arguments.length > 0) {
            Subject.doAs(login.getSubject(), (PrivilegedExceptionAction<byte[]>) () -> token(arguments[0]));
        }
        login.logout();
    }

    static byte[] token(String service) throws Exception {
        Oid kerberos = new Oid("1.2.840.113554.1.2.2");
        GSSManager manager = GSSManager.getInstance();
        GSSName name = manager.createName(service, new Oid("1.2.840.113554.1.2.2.1"));
        GSSCredential credential = manager.createCredential(
            null, GSSCredential.DEFAULT_LIFETIME, kerberos, GSSCredential.INITIATE_ONLY);
        GSSContext context = manager.createContext(name, kerberos, credential, GSSContext.DEFAULT_LIFETIME);
        byte[] token = context.initSecContext(new byte[0], 0, 0);
        context.dispose();
        return token;
    }
}
